//! Subjects and subject filters: dot-separated tokens, `*` for one token, a final `>` for one or more.

/// Longest subject or filter this bus accepts, in bytes: what the broker's control line has room for.
pub const SUBJECT_BYTES_MAX: usize = 512;

/// Whether `subject` is one literal subject: no empty token, no wildcard, no white space.
#[must_use]
pub fn is_subject(subject: &str) -> bool {
    tokens_are_legal(subject) && subject.split('.').all(|token| token != "*" && token != ">")
}

/// Whether `filter` is a subject in which a token may be `*` and the last may be `>`.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    tokens_are_legal(filter) && filter.split('.').rev().skip(1).all(|token| token != ">")
}

/// Whether `name` is legal for a stream or a consumer: one token, so that it can stand in an API subject.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Whether `filter` covers `subject`.
#[must_use]
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut subject_tokens = subject.split('.');
    for filter_token in filter.split('.') {
        match (filter_token, subject_tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (literal, Some(token)) if literal == token => {}
            _ => return false,
        }
    }
    subject_tokens.next().is_none()
}

/// Whether some subject is covered by both filters.
#[must_use]
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(one), Some(other)) if one == "*" || other == "*" || one == other => {}
            _ => return false,
        }
    }
}

fn tokens_are_legal(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len())
        && text.split('.').all(|token| {
            !token.is_empty()
                && !token.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition written as a recursion over token lists, slow and obvious.
    fn naive(filter: &[&str], subject: &[&str]) -> bool {
        match (filter, subject) {
            ([], []) | ([">"], [_, ..]) => true,
            (["*", filter @ ..], [_, subject @ ..]) => naive(filter, subject),
            ([literal, filter @ ..], [token, subject @ ..]) => literal == token && naive(filter, subject),
            _ => false,
        }
    }

    fn subjects() -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..5)
    }

    fn filters() -> impl Strategy<Value = Vec<&'static str>> {
        (prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 0..4), any::<bool>()).prop_map(
            |(mut tokens, tail)| {
                if tail || tokens.is_empty() {
                    tokens.push(">");
                }
                tokens
            },
        )
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(filter in filters(), subject in subjects()) {
            prop_assert_eq!(matches(&filter.join("."), &subject.join(".")), naive(&filter, &subject));
        }

        #[test]
        fn filters_that_share_a_subject_overlap(one in filters(), other in filters(), subject in subjects()) {
            let (one, other, subject) = (one.join("."), other.join("."), subject.join("."));
            if matches(&one, &subject) && matches(&other, &subject) {
                prop_assert!(overlap(&one, &other));
            }
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
        }
    }

    #[test]
    fn legal_and_illegal_text() {
        for (text, subject, filter) in [
            ("a", true, true),
            ("a.b-c_D.9", true, true),
            ("a.*.c", false, true),
            ("a.>", false, true),
            (">", false, true),
            ("a.>.c", false, false),
            ("", false, false),
            ("a..b", false, false),
            (".a", false, false),
            ("a.", false, false),
            ("a b", false, false),
            ("a\r\nPUB", false, false),
        ] {
            assert_eq!(is_subject(text), subject, "{text:?} as a subject");
            assert_eq!(is_filter(text), filter, "{text:?} as a filter");
        }
        assert!(!is_name("a.b") && !is_name("") && !is_name("a*") && is_name("walras-event-market-main"));
    }
}
