//! The schema that a record was written with, in a form made for decoding.
//!
//! `apache-avro` parses the schema; here it becomes a flat list of nodes in which references are indices, so that the
//! decoder needs no look-up by name and a recursive schema is just a cycle.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, NamespaceRef, UuidSchema};

use super::SchemaError;

/// Longest schema text accepted.
pub(super) const MAX_SCHEMA_BYTES: usize = 1024 * 1024;
/// Most nodes of a schema.
const MAX_NODES: usize = 20_000;

/// A writer's schema, ready for decoding.
#[derive(Debug)]
pub struct WriterSchema {
    id: u32,
    text: String,
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
}

pub(super) type NodeId = usize;

/// One type of a schema as the decoder sees it: by its encoding, logical types taken off.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    /// `int` and `long`; both are encoded alike.
    Long,
    /// A timestamp in units of a millisecond divided by the number.
    Timestamp {
        per_ms: i64,
    },
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record {
        names: Vec<String>,
        fields: Vec<NodeId>,
    },
}

impl WriterSchema {
    /// Parses the text that the registry gave for the id.
    pub fn parse(id: u32, text: &str) -> Result<WriterSchema, SchemaError> {
        Self::parse_with_references(id, text, &[])
    }

    /// Parses a schema that uses types defined in other schemas.
    pub fn parse_with_references(
        id: u32,
        text: &str,
        references: &[String],
    ) -> Result<WriterSchema, SchemaError> {
        let invalid = |reason: String| SchemaError::Invalid { id, reason };
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(invalid(format!("it has {} bytes, {MAX_SCHEMA_BYTES} are allowed", text.len())));
        }
        let not_avro = |error: apache_avro::Error| invalid(format!("it does not parse as Avro: {error}"));
        let (schema, others) = if references.is_empty() {
            (Schema::parse_str(text).map_err(not_avro)?, Vec::new())
        } else {
            Schema::parse_str_with_list(text, references).map_err(not_avro)?
        };
        let mut compiler = Compiler::default();
        for other in &others {
            compiler.add(other, None).map_err(invalid)?;
        }
        let root = compiler.add(&schema, None).map_err(invalid)?;
        Ok(WriterSchema { id, text: text.to_owned(), nodes: compiler.nodes, root })
    }

    /// The schema id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The schema as the registry holds it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[derive(Default)]
struct Compiler {
    nodes: Vec<Node>,
    named: BTreeMap<String, NodeId>,
}

impl Compiler {
    fn add(&mut self, schema: &Schema, namespace: NamespaceRef<'_>) -> Result<NodeId, String> {
        if let Schema::Ref { name } = schema {
            let name = name.fullname(namespace);
            return self
                .named
                .get(&name)
                .copied()
                .ok_or_else(|| format!("it does not define the type {name}"));
        }
        let id = self.nodes.len();
        if id >= MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} parts"));
        }
        // The place is taken before the parts are looked at, because they may refer back to it.
        self.nodes.push(Node::Null);
        if let Some(name) = schema.name() {
            self.named.insert(name.fullname(namespace), id);
        }
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Long | Schema::Date | Schema::TimeMillis | Schema::TimeMicros => Node::Long,
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Node::Timestamp { per_ms: 1 },
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Node::Timestamp { per_ms: 1_000 },
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Node::Timestamp { per_ms: 1_000_000 },
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::String,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Node::Fixed(fixed.size)
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Node::Fixed(fixed.size),
            },
            Schema::Enum(symbols) => Node::Enum(symbols.symbols.clone()),
            Schema::Array(array) => Node::Array(self.add(&array.items, namespace)?),
            Schema::Map(map) => Node::Map(self.add(&map.types, namespace)?),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.add(branch, namespace));
                Node::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                let (mut names, mut fields) = (Vec::new(), Vec::new());
                for field in &record.fields {
                    names.push(field.name.clone());
                    fields.push(self.add(&field.schema, name.namespace())?);
                }
                Node::Record { names, fields }
            }
            Schema::Ref { .. } => return Err("a reference stands where a type was expected".into()),
        };
        if let Some(place) = self.nodes.get_mut(id) {
            *place = node;
        }
        Ok(id)
    }
}
