//! Reading server-sent events (the part of the format that the gateway writes).

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

/// The gateway sends a comment every 15 s: after so long without anything it is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// Longest event, in bytes.
const EVENT_MAX: usize = 1 << 20;

/// An event as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its type.
    pub(crate) event: String,
    /// Its data.
    pub(crate) data: String,
}

/// A stream of events.
pub(crate) struct Events {
    body: Incoming,
    text: Vec<u8>,
}

impl Events {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body,
            text: Vec::new(),
        }
    }

    /// The next event; none where the stream has ended or broke.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let message = parse(&String::from_utf8_lossy(&block));
                if !message.data.is_empty() {
                    return Some(message);
                }
            }
            let frame = timeout(SILENCE, self.body.frame()).await.ok()??.ok()?;
            if let Some(data) = frame.data_ref() {
                if self.text.len() + data.len() > EVENT_MAX {
                    return None;
                }
                self.text.extend_from_slice(data);
            }
        }
    }
}

fn parse(block: &str) -> Message {
    let mut message = Message::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => message.event = value.into(),
            "data" => message.data.push_str(value),
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_type_and_data_and_comments_have_neither() {
        let message = parse("id: 7\nevent: update.state\ndata: {\"seq\":7}\n\n");
        assert_eq!(
            message,
            Message {
                event: "update.state".into(),
                data: "{\"seq\":7}".into()
            }
        );
        assert_eq!(parse(":\n\n"), Message::default());
    }
}
