//! What a failure of the folder means to an operator.
//!
//! A local disk that fails does not heal by asking again, so every failure is [`StoreError::Refused`] with a
//! sentence that says what to do; campaignd stops with nothing acknowledged that is not on the disk.

use std::error::Error;
use std::io;
use std::path::Path;

use crate::store::StoreError;

/// The sentence for a failed call on the folder.
pub(super) fn refused(folder: &Path, error: &fjall::Error) -> StoreError {
    let folder = folder.display();
    let text = match (error, io_cause(error)) {
        (fjall::Error::Locked, _) => format!(
            "another process uses the embedded store in {folder}; stop it, or set store.embedded.path to another folder"
        ),
        (_, Some(cause)) => match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                format!("the disk under {folder} is full ({cause}); free space and start campaignd again")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
                "campaignd may not write to {folder} ({cause}); give its user the folder, or set store.embedded.path to another one"
            ),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                format!("{folder} is not a folder ({cause}); set store.embedded.path to a folder")
            }
            _ => format!(
                "the embedded store in {folder} cannot be read or written: {cause}; check the disk and start campaignd again"
            ),
        },
        (fjall::Error::Poisoned, None) => format!(
            "an earlier write to {folder} failed, so nothing more is accepted; check the disk for space and errors and start campaignd again"
        ),
        (fjall::Error::InvalidVersion(_), None) => format!(
            "{folder} was written by another version of the embedded store; use the campaignd that wrote it, or another folder"
        ),
        (other, None) => format!(
            "the embedded store in {folder} is damaged ({other:?}); restore the folder from a copy, or start with an empty one"
        ),
    };
    StoreError::Refused(text)
}

/// The system's error at the bottom, if the disk said no. A file that ends early is damage, not a refusal.
fn io_cause(error: &fjall::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return (io.kind() != io::ErrorKind::UnexpectedEof && io.kind() != io::ErrorKind::InvalidData)
                .then_some(io);
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: fjall::Error) -> String {
        refused(Path::new("/data"), &error).to_string()
    }

    #[test]
    fn a_full_disk_is_named_wherever_it_hits() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(text(fjall::Error::Io(full())).contains("the disk under /data is full"));
        assert!(
            text(fjall::Error::Storage(fjall::LsmError::Io(full()))).contains("the disk under /data is full")
        );
    }

    #[test]
    fn damage_is_told_from_a_disk_that_says_no() {
        let short = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(text(fjall::Error::Io(short)).contains("damaged"));
        assert!(text(fjall::Error::Unrecoverable).contains("damaged"));
        assert!(text(fjall::Error::Io(io::ErrorKind::PermissionDenied.into())).contains("may not write"));
    }
}
