//! Free loopback ports below the range from which the system takes ports for outgoing connections.
//!
//! A port that a client socket could be given between the choice and the service's own bind would make starts fail now
//! and then. Two tools that start at the same moment can still choose the same one; the start is then tried again.

use anyhow::bail;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

/// Registered ports that few programs use, below Linux' 32768 and up.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Finds this many different ports that are free now.
pub fn free<const N: usize>() -> anyhow::Result<[u16; N]> {
    let span = u32::from(RANGE.end - RANGE.start);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let first = (clock / 1_000).wrapping_add(std::process::id().wrapping_mul(7_919)) % span;
    let mut held = Vec::new();
    for step in 0..span {
        let port = RANGE.start + u16::try_from((first + step) % span)?;
        // Held until all are found, so that none is found twice.
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|listener| (port, listener)));
        if held.len() == N {
            break;
        }
    }
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    match ports.try_into() {
        Ok(ports) => Ok(ports),
        Err(_) => bail!("no {N} free ports on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end),
    }
}

#[cfg(test)]
mod tests {
    use super::{RANGE, free};

    #[test]
    fn ports_are_free_different_and_in_range() {
        let mut ports: [u16; 5] = free().unwrap();
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
        assert!(ports.iter().all(|port| RANGE.contains(port)), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_not_chosen() {
        let [taken] = free().unwrap();
        let _listener = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
        for _ in 0..50 {
            let ports: [u16; 3] = free().unwrap();
            assert!(!ports.contains(&taken), "{ports:?} holds {taken}");
        }
    }
}
