//! A user state as bytes, and back.
//!
//! Layout: one byte of version, four bytes of CRC-32 (little endian, over everything after them and the version), the
//! body in bitcode. Bitcode has no field tags, so each version is a set of types of its own, here in a module of its
//! own, and never changes after a release; a release reads the next version or writes the previous one.
//!
//! What always holds: `decode(encode(s)) == s` but for the marks of who published an outbox entry, which are not
//! stored; bytes that were not written by [`encode`] give a [`CodecError`] and never a panic.

mod v1;

use super::UserState;

/// The version that is written.
pub const VERSION: u8 = 1;

/// Cells larger than this are refused unread: 16 MiB, far above what the bounds of the parts allow.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Version and checksum.
const HEADER_BYTES: usize = 5;

/// Why bytes are not a user state. The user is parked as `state_corrupt` and an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There are not even a version and a checksum, or there is too much.
    #[error("a state cell of {length} bytes is impossible; restore the cell or erase the user")]
    Length {
        /// Bytes that came.
        length: usize,
    },
    /// A version that this release does not know.
    #[error(
        "the state cell has version {version} and this release reads up to {VERSION}; run the release that wrote it"
    )]
    Version {
        /// The version byte.
        version: u8,
    },
    /// The checksum does not fit the bytes.
    #[error("the state cell is damaged (checksum mismatch); restore the cell or erase the user")]
    Checksum,
    /// The checksum fits, but the body is no state.
    #[error("the state cell does not hold a valid state; restore the cell or erase the user")]
    Body,
}

/// Appends the encoded state to `out`.
pub fn encode(state: &UserState, out: &mut Vec<u8>) {
    let body = v1::encode(state);
    out.reserve(HEADER_BYTES.saturating_add(body.len()));
    out.push(VERSION);
    out.extend_from_slice(&checksum(VERSION, &body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// The state that [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<UserState, CodecError> {
    if bytes.len() > MAX_BYTES {
        return Err(CodecError::Length { length: bytes.len() });
    }
    let Some((&version, rest)) = bytes.split_first() else { return Err(CodecError::Length { length: 0 }) };
    if version != VERSION {
        return Err(CodecError::Version { version });
    }
    let Some((stored, body)) = rest.split_first_chunk::<4>() else {
        return Err(CodecError::Length { length: bytes.len() });
    };
    if u32::from_le_bytes(*stored) != checksum(version, body) {
        return Err(CodecError::Checksum);
    }
    v1::decode(body).ok_or(CodecError::Body)
}

fn checksum(version: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version]);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
