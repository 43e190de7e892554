//! The broker's side of a pull, as text: statuses, headers, and the reply subject of a delivery.

use async_nats::{Message, StatusCode};

/// Whether a status only says that one pull is over, not that something is wrong.
pub(super) fn is_end_of_pull(status: StatusCode, description: &str) -> bool {
    match status {
        StatusCode::TIMEOUT | StatusCode::NOT_FOUND => true,
        StatusCode::REQUEST_TERMINATED => {
            let description = description.to_ascii_lowercase();
            description.contains("maxbytes") || description.contains("batch completed")
        }
        _ => false,
    }
}

/// A number in a header.
pub(super) fn number(message: &Message, name: &'static str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}

/// The stream's and the consumer's sequence out of a delivery's reply subject:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>`, or with
/// `<domain>.<account>` before the stream and possibly a token behind.
pub(super) fn sequences(reply: &str) -> Option<(u64, u64)> {
    let tokens: Vec<&str> = reply.split('.').collect();
    let offset = match tokens.as_slice() {
        ["$JS", "ACK", _, _, _, _, _, _, _] => 5,
        ["$JS", "ACK", rest @ ..] if rest.len() >= 9 => 7,
        _ => return None,
    };
    Some((tokens.get(offset)?.parse().ok()?, tokens.get(offset + 1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_tells_the_sequences() {
        for (reply, expected) in [
            ("$JS.ACK.s.c.1.42.7.1700000000000000000.0", Some((42, 7))),
            ("$JS.ACK._.hash.s.c.1.42.7.1700000000000000000.0", Some((42, 7))),
            ("$JS.ACK.hub.hash.s.c.1.42.7.1700000000000000000.0.x1y2", Some((42, 7))),
            ("$JS.ACK.s.c.1.x.7.1700000000000000000.0", None),
            ("$JS.ACK.s.c", None),
            ("_INBOX.a.b.c.d.e.f.g.h", None),
        ] {
            assert_eq!(sequences(reply), expected, "{reply}");
        }
    }

    #[test]
    fn only_the_end_of_a_pull_is_no_doubt() {
        for (status, description, expected) in [
            (StatusCode::TIMEOUT, "Request Timeout", true),
            (StatusCode::NOT_FOUND, "No Messages", true),
            (StatusCode::REQUEST_TERMINATED, "Message Size Exceeds MaxBytes", true),
            (StatusCode::REQUEST_TERMINATED, "Batch Completed", true),
            (StatusCode::REQUEST_TERMINATED, "Consumer Deleted", false),
            (StatusCode::REQUEST_TERMINATED, "Leadership Change", false),
            (StatusCode::REQUEST_TERMINATED, "Server Shutdown", false),
            (StatusCode::REQUEST_TERMINATED, "Exceeded MaxWaiting", false),
            (StatusCode::NO_RESPONDERS, "", false),
        ] {
            assert_eq!(is_end_of_pull(status, description), expected, "{status} {description}");
        }
    }
}
