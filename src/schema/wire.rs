//! The Confluent wire format: a zero byte, the schema id in four bytes (big endian), the Avro body.

/// Bytes before the Avro body.
pub const HEADER_BYTES: usize = 5;

/// Why a value is not in the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Shorter than the header.
    #[error(
        "{bytes} bytes are too few for the Confluent wire format, which begins with {HEADER_BYTES} bytes of header"
    )]
    TooShort {
        /// How many bytes there were.
        bytes: usize,
    },
    /// The first byte is not zero.
    #[error(
        "the first byte is {byte:#04x}, not 0x00: not the Confluent wire format; use its Avro serialiser"
    )]
    Magic {
        /// The first byte.
        byte: u8,
    },
}

/// The schema id and the Avro body.
pub fn split(value: &[u8]) -> Result<(u32, &[u8]), FramingError> {
    match value {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [0, ..] | [] => Err(FramingError::TooShort { bytes: value.len() }),
        [byte, ..] => Err(FramingError::Magic { byte: *byte }),
    }
}

/// Begins a value of the schema: the header, with room for `body_bytes` more.
pub fn header(id: u32, body_bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + body_bytes);
    value.push(0);
    value.extend_from_slice(&id.to_be_bytes());
    value
}

/// A body as a value of the schema.
pub fn frame(id: u32, body: &[u8]) -> Vec<u8> {
    let mut value = header(id, body.len());
    value.extend_from_slice(body);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_split_again() {
        let value = frame(0x0102_0304, b"body");
        assert_eq!(value, b"\0\x01\x02\x03\x04body");
        assert_eq!(split(&value), Ok((0x0102_0304, &b"body"[..])));
        assert_eq!(split(&frame(7, b"")), Ok((7, &b""[..])));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(split(b""), Err(FramingError::TooShort { bytes: 0 }));
        assert_eq!(split(b"\0\0\0\0"), Err(FramingError::TooShort { bytes: 4 }));
        assert_eq!(split(b"{\"a\":1}"), Err(FramingError::Magic { byte: b'{' }));
    }
}
