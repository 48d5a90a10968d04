//! Where a record stands, as an operator writes it: `2@118` is offset 118 of partition 2.

use std::fmt;
use std::str::FromStr;

/// A partition and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Partition, from 0.
    pub partition: i32,
    /// Offset, from 0.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('@')
            .filter(|(partition, offset)| number(partition) && number(offset))
            .and_then(|(partition, offset)| {
                Some(Place { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
            })
            .ok_or_else(|| "write partition@offset, such as 2@118".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        let place = Place { partition: 2, offset: 118 };
        assert_eq!(place.to_string(), "2@118");
        assert_eq!("2@118".parse(), Ok(place));
        for wrong in ["", "2", "@", "2@", "@118", "-1@3", "2@-3", "2@+3", "a@b", "2@1@1", "9999999999@1"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("2@118"), "{wrong}");
        }
    }
}
