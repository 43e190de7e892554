//! Parsers' complaints in words that somebody can act on who does not know the parser.

/// Says what a parser's error means to who wrote the text: `invalid type: floating point, expected u32` becomes
/// `must be a whole number from 0 to 4294967295`. What is not known stays as it is.
pub(super) fn plain(problem: &str) -> String {
    // The parser's place in the text says nothing to a sender of JSON made by a program.
    let problem = problem.rsplit_once(" at line ").map_or(problem, |(problem, _)| problem);
    if problem.starts_with("missing field `") {
        return "is missing".to_owned();
    }
    if problem.starts_with("duplicate field `") {
        return "stands twice".to_owned();
    }
    if let Some((_, known)) = problem.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, "))
    {
        let known =
            known.strip_prefix("expected ").map(|known| known.strip_prefix("one of ").unwrap_or(known));
        return known
            .map_or("is no field here".to_owned(), |known| format!("is no field here; there is {known}"));
    }
    if let Some((_, known)) =
        problem.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, expected "))
    {
        return format!("must be {known}");
    }
    let mistaken = problem.starts_with("invalid type: ") || problem.starts_with("invalid value: ");
    match problem.rsplit_once(", expected ") {
        Some((_, wanted)) if mistaken => format!("must be {}", wanted_in_words(wanted)),
        _ => problem.to_owned(),
    }
}

fn wanted_in_words(wanted: &str) -> String {
    let most = match wanted {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => u64::MAX,
        "a boolean" => return "true or false".to_owned(),
        "a map" => return "an object".to_owned(),
        "a sequence" => return "a list".to_owned(),
        "a string" | "a borrowed string" => return "a text".to_owned(),
        other if other.starts_with("struct ") => return "an object".to_owned(),
        other => return other.to_owned(),
    };
    format!("a whole number from 0 to {most}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_say_what_must_be() {
        for (problem, words) in [
            (
                "invalid value: integer `-5`, expected u64 at line 1 column 58",
                "must be a whole number from 0 to 18446744073709551615",
            ),
            (
                "invalid type: floating point `2.5`, expected u32",
                "must be a whole number from 0 to 4294967295",
            ),
            (
                "invalid type: floating point `0.03`, expected a price as text, such as \"0.031\"",
                "must be a price as text, such as \"0.031\"",
            ),
            ("invalid type: sequence, expected struct PlaceBid", "must be an object"),
            ("missing field `quantity` at line 1 column 9", "is missing"),
            ("duplicate field `quantity`", "stands twice"),
            (
                "unknown field `colour`, expected one of `id`, `tenant`",
                "is no field here; there is `id`, `tenant`",
            ),
            ("unknown field `colour`, expected `id`", "is no field here; there is `id`"),
            ("unknown field `colour`, there are no fields", "is no field here"),
            ("unknown variant `Bid`, expected one of `A`, `B`", "must be one of `A`, `B`"),
            ("EOF while parsing a value at line 1 column 0", "EOF while parsing a value"),
            ("tenant may hold only letters", "tenant may hold only letters"),
        ] {
            assert_eq!(plain(problem), words, "{problem}");
        }
    }
}
