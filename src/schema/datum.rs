//! Reading the Avro binary encoding, by any writer's schema, from bytes that nobody vouches for.
//!
//! What always holds: every item read costs a step, and there are little more steps than bytes, so neither a huge
//! count nor an array of items without bytes can take long or much memory; nesting is bounded whatever the schema
//! says; a record that ends too early or too late is an error; texts are UTF-8. Texts are borrowed from the record.
//!
//! It resolves nothing: a [`Datum`] is what the writer wrote. The schema's logical types are taken off (timestamps come
//! in milliseconds), unions are seen through. [`Fields`] gives the fields of a record by name, which is how a newer or
//! older writer is read.

use super::WriterSchema;
use super::writer::{Node, NodeId};
use crate::event::{LimitError, Properties, Value};

/// Deepest nesting of arrays, maps, records and unions. Our own schemas need six.
const MAX_DEPTH: usize = 32;
/// Steps beyond one per byte, for the null fields of records.
const SPARE_STEPS: usize = 1024;

/// Why a body is not a value of its schema, or not of the type wanted. The texts name fields of our schemas, never values
/// and never a producer's names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends before its schema does.
    #[error("the record ends too early for its schema; was it written with another one?")]
    Truncated,
    /// Bytes are left over.
    #[error("{bytes} bytes follow the record; was it written with another schema?")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// Bytes that mean nothing in Avro.
    #[error("not Avro: {0}")]
    Malformed(&'static str),
    /// Nested deeper than allowed.
    #[error("nested deeper than {MAX_DEPTH} levels; flatten the record")]
    TooDeep,
    /// More items than a record of its length can hold.
    #[error("more items than {bytes} bytes can hold")]
    TooManyItems {
        /// Length of the body.
        bytes: usize,
    },
    /// The schema lacks a field that has no default.
    #[error("the writer's schema has no field {field}; add it")]
    MissingField {
        /// The missing field.
        field: &'static str,
    },
    /// A field has a type that does not fit.
    #[error("{field} is {found}, expected {expected}; correct the writer's schema")]
    WrongType {
        /// The field, or the record as a whole.
        field: &'static str,
        /// What was there.
        found: &'static str,
        /// What should have been there.
        expected: &'static str,
    },
    /// A text is none of those that the field may hold.
    #[error("{field} holds a text that this version does not know; use a newer campaignd")]
    UnknownText {
        /// The field.
        field: &'static str,
    },
    /// A value of the right type that the field cannot hold.
    #[error("{field} holds a value out of its range; correct the writer")]
    OutOfRange {
        /// The field.
        field: &'static str,
    },
    /// The event breaks a bound.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl DecodeError {
    /// Whether the bytes are good Avro that breaks a bound.
    pub fn is_limit(&self) -> bool {
        matches!(self, DecodeError::Limit(_) | DecodeError::TooDeep | DecodeError::TooManyItems { .. })
    }
}

/// A value as written.
#[derive(Debug, PartialEq)]
pub enum Datum<'a> {
    /// `null`.
    Null,
    /// `boolean`.
    Boolean(bool),
    /// `int`, `long`, or a timestamp in milliseconds.
    Long(i64),
    /// `float` or `double`.
    Double(f64),
    /// `string`, or the symbol of an `enum`.
    String(&'a str),
    /// `bytes` or `fixed`.
    Bytes(&'a [u8]),
    /// `array`.
    Array(Vec<Datum<'a>>),
    /// `map`, in the order written.
    Map(Vec<(&'a str, Datum<'a>)>),
    /// `record`.
    Record(Fields<'a>),
}

/// The fields of a record, to be taken one by one.
#[derive(Debug, PartialEq)]
pub struct Fields<'a> {
    names: &'a [String],
    values: Vec<Option<Datum<'a>>>,
}

/// Decodes a body by its writer's schema.
pub fn decode<'a>(schema: &'a WriterSchema, body: &'a [u8]) -> Result<Datum<'a>, DecodeError> {
    let mut reader = Reader {
        nodes: &schema.nodes,
        rest: body,
        steps: body.len().saturating_add(SPARE_STEPS),
        bytes: body.len(),
    };
    let datum = reader.datum(schema.root, MAX_DEPTH)?;
    match reader.rest.len() {
        0 => Ok(datum),
        bytes => Err(DecodeError::TrailingBytes { bytes }),
    }
}

struct Reader<'a> {
    nodes: &'a [Node],
    rest: &'a [u8],
    steps: usize,
    bytes: usize,
}

impl<'a> Reader<'a> {
    fn datum(&mut self, node: NodeId, depth: usize) -> Result<Datum<'a>, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        self.steps = self.steps.checked_sub(1).ok_or(DecodeError::TooManyItems { bytes: self.bytes })?;
        let node =
            self.nodes.get(node).ok_or(DecodeError::Malformed("a type that the schema does not define"))?;
        Ok(match node {
            Node::Null => Datum::Null,
            Node::Boolean => match self.take(1)? {
                [0] => Datum::Boolean(false),
                [1] => Datum::Boolean(true),
                _ => return Err(DecodeError::Malformed("a boolean that is neither 0 nor 1")),
            },
            Node::Long => Datum::Long(self.long()?),
            Node::Timestamp { per_ms } => Datum::Long(self.long()?.div_euclid(*per_ms)),
            Node::Float => Datum::Double(f64::from(f32::from_le_bytes(self.array()?))),
            Node::Double => Datum::Double(f64::from_le_bytes(self.array()?)),
            Node::Bytes => Datum::Bytes(self.sized()?),
            Node::String => Datum::String(self.string()?),
            Node::Fixed(size) => Datum::Bytes(self.take(*size)?),
            Node::Enum(symbols) => {
                let symbol = usize::try_from(self.long()?).ok().and_then(|index| symbols.get(index));
                Datum::String(symbol.ok_or(DecodeError::Malformed("a symbol that the enum does not have"))?)
            }
            Node::Array(items) => {
                let mut array = Vec::new();
                self.blocks(|reader| {
                    array.push(reader.datum(*items, depth)?);
                    Ok(())
                })?;
                Datum::Array(array)
            }
            Node::Map(values) => {
                let mut map = Vec::new();
                self.blocks(|reader| {
                    map.push((reader.string()?, reader.datum(*values, depth)?));
                    Ok(())
                })?;
                Datum::Map(map)
            }
            Node::Union(branches) => {
                let branch = usize::try_from(self.long()?).ok().and_then(|index| branches.get(index));
                self.datum(
                    *branch.ok_or(DecodeError::Malformed("a branch that the union does not have"))?,
                    depth,
                )?
            }
            Node::Record { names, fields } => {
                let mut values = Vec::with_capacity(fields.len().min(self.steps));
                for field in fields {
                    values.push(Some(self.datum(*field, depth)?));
                }
                Datum::Record(Fields { names, values })
            }
        })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn long(&mut self) -> Result<i64, DecodeError> {
        let mut zigzag = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                break;
            }
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()));
            }
        }
        Err(DecodeError::Malformed("an integer of more than 64 bits"))
    }

    fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(DecodeError::Malformed("a negative length")),
        }
    }

    fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.sized()?).map_err(|_| DecodeError::Malformed("a text that is not UTF-8"))
    }

    /// Reads the blocks of an array or map, calling `item` for each item. A negative count says that the block's size in
    /// bytes follows.
    fn blocks(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.long()?) } else { None };
            let before = self.rest.len();
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
            if size.is_some_and(|size| usize::try_from(size) != Ok(before - self.rest.len())) {
                return Err(DecodeError::Malformed("a block whose size does not match its items"));
            }
        }
    }
}

impl<'a> Datum<'a> {
    fn kind(&self) -> &'static str {
        match self {
            Datum::Null => "null",
            Datum::Boolean(_) => "a boolean",
            Datum::Long(_) => "an integer",
            Datum::Double(_) => "a double",
            Datum::String(_) => "a string",
            Datum::Bytes(_) => "bytes",
            Datum::Array(_) => "an array",
            Datum::Map(_) => "a map",
            Datum::Record(_) => "a record",
        }
    }

    fn unexpected(&self, field: &'static str, expected: &'static str) -> DecodeError {
        DecodeError::WrongType { field, found: self.kind(), expected }
    }

    pub(super) fn into_record(self, field: &'static str) -> Result<Fields<'a>, DecodeError> {
        match self {
            Datum::Record(fields) => Ok(fields),
            other => Err(other.unexpected(field, "a record")),
        }
    }

    pub(super) fn into_string(self, field: &'static str) -> Result<String, DecodeError> {
        match self {
            Datum::String(text) => Ok(text.to_owned()),
            other => Err(other.unexpected(field, "a string")),
        }
    }

    pub(super) fn into_long(self, field: &'static str) -> Result<i64, DecodeError> {
        match self {
            Datum::Long(value) => Ok(value),
            other => Err(other.unexpected(field, "an integer")),
        }
    }

    pub(super) fn into_values(self, field: &'static str) -> Result<Properties, DecodeError> {
        match self {
            Datum::Map(entries) => entries
                .into_iter()
                .map(|(name, datum)| Ok((name.to_owned(), datum.into_value(field)?)))
                .collect(),
            other => Err(other.unexpected(field, "a map")),
        }
    }

    fn into_value(self, field: &'static str) -> Result<Value, DecodeError> {
        Ok(match self {
            Datum::Null => Value::Null,
            Datum::Boolean(value) => Value::Boolean(value),
            Datum::Long(value) => Value::Long(value),
            Datum::Double(value) => Value::Double(value),
            Datum::String(text) => Value::String(text.to_owned()),
            Datum::Array(items) => {
                let texts = items.into_iter().map(|item| item.into_string(field));
                Value::Strings(texts.collect::<Result<_, _>>()?)
            }
            other => {
                return Err(
                    other.unexpected(field, "null, boolean, long, double, string or an array of string")
                );
            }
        })
    }
}

impl<'a> Fields<'a> {
    /// Takes a field by name; `place` is where it stands in our own schema, which is where it most likely is.
    pub(super) fn take(&mut self, place: usize, name: &str) -> Option<Datum<'a>> {
        let place = match self.names.get(place) {
            Some(there) if there == name => place,
            _ => self.names.iter().position(|there| there == name)?,
        };
        self.values.get_mut(place)?.take()
    }

    /// Takes a field that must be there.
    pub(super) fn require(&mut self, place: usize, name: &'static str) -> Result<Datum<'a>, DecodeError> {
        self.take(place, name).ok_or(DecodeError::MissingField { field: name })
    }

    /// Takes a field that may be absent or null.
    pub(super) fn optional(&mut self, place: usize, name: &str) -> Option<Datum<'a>> {
        self.take(place, name).filter(|datum| !matches!(datum, Datum::Null))
    }
}
