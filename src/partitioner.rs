//! Which partition a key belongs to.
//!
//! A record of `events` on another partition than its key's would give its user two writers, so the pipeline checks
//! each one. Must agree with what producers use: Java's default (murmur2) or librdkafka's `consistent` (crc32).

use serde::{Deserialize, Serialize};

/// The partitioner that all producers of `events` use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// Murmur2 as the Java client's default partitioner, librdkafka's `murmur2_random`.
    #[default]
    Murmur2,
    /// CRC-32 as librdkafka's `consistent_random`.
    Crc32,
}

impl Partitioner {
    /// The partition of `key` among `count` (at least 1).
    pub fn partition(self, key: &[u8], count: i32) -> i32 {
        let hash = match self {
            Partitioner::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Partitioner::Crc32 => crc32fast::hash(key),
        };
        let count = u32::try_from(count.max(1)).unwrap_or(1);
        i32::try_from(hash % count).unwrap_or(0)
    }
}

/// MurmurHash2 with the seed and mixing of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from Kafka's own unit test of `Utils.murmur2` (UtilsTest.testMurmur2).
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, expected) in cases {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_partition_is_always_in_range() {
        for key in 0..1000_u32 {
            for partitioner in [Partitioner::Murmur2, Partitioner::Crc32] {
                assert!((0..7).contains(&partitioner.partition(&key.to_le_bytes(), 7)));
                assert_eq!(partitioner.partition(&key.to_le_bytes(), 1), 0);
            }
        }
    }
}
