//! One HTTP/1.1 request on loopback: all that the registry has to be asked.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than any answer that is asked for here.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Sends the request and returns the status code.
pub fn request(port: u16, method: &str, path: &str, json: Option<&str>) -> Result<u16> {
    let mut stream = connect(port)?;
    let body = json.unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    status(&String::from_utf8_lossy(&answer)).ok_or_else(|| Error::from(ErrorKind::InvalidData))
}

/// A loopback connection with time-outs on everything.
pub fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// The number in `HTTP/1.1 200 OK`.
fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn the_status_is_read_from_the_first_line_only() {
        assert_eq!(status("HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(status("HTTP/1.0 404 Not Found\r\n"), Some(404));
        assert_eq!(status("SSH-2.0 200 hello"), None);
        assert_eq!(status(""), None);
    }
}
