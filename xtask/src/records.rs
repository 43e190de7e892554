//! Lines of JSON that benches print, as rows of a table.

/// Nested objects beyond this are not read.
const DEPTH: usize = 4;

/// The fields of an object of numbers, texts and such objects, in order, each named by its path; `None` for any
/// other line. Texts with escapes are not read: figures have none.
pub(crate) fn fields(line: &str) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let rest = object(line.trim(), "", DEPTH, &mut fields)?;
    rest.is_empty().then_some(fields)
}

/// Column titles and rows of records, as they come: a record with other fields than the first is cut to those.
pub(crate) fn rows(records: &[Vec<(String, String)>]) -> (Vec<String>, Vec<Vec<String>>) {
    let head: Vec<String> = records.first().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let value = |record: &[(String, String)], name: &String| {
        record.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let rows = records.iter().map(|record| head.iter().map(|name| value(record, name)).collect()).collect();
    (head, rows)
}

fn object<'a>(
    text: &'a str,
    path: &str,
    depth: usize,
    fields: &mut Vec<(String, String)>,
) -> Option<&'a str> {
    let mut rest = text.strip_prefix('{')?.trim_start();
    if let Some(after) = rest.strip_prefix('}') {
        return Some(after.trim_start());
    }
    loop {
        let (name, after) = rest.strip_prefix('"')?.split_once('"')?;
        let name = if path.is_empty() {
            name.replace('_', " ")
        } else {
            format!("{path} {}", name.replace('_', " "))
        };
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        if rest.starts_with('{') {
            rest = object(rest, &name, depth.checked_sub(1)?, fields)?;
        } else {
            let (value, after) = scalar(rest)?;
            fields.push((name, value.to_owned()));
            rest = after.trim_start();
        }
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after.trim_start());
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

fn scalar(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted.split_once('"')?;
        return (!value.contains('\\')).then_some((value, rest));
    }
    let end = text.find([',', '}'])?;
    let (value, rest) = text.split_at(end);
    let value = value.trim();
    let is_number = value.parse::<f64>().is_ok();
    (is_number || value == "null" || value == "true" || value == "false").then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::{fields, rows};

    #[test]
    fn nested_figures_become_columns() {
        let line = r#"{"rate_per_second": 12.5,"name":"bus","wait":{"p50":1,"p99":null}}"#;
        let expected =
            [("rate per second", "12.5"), ("name", "bus"), ("wait p50", "1"), ("wait p99", "null")];
        assert_eq!(fields(line).unwrap(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(fields("{}"), Some(Vec::new()));
    }

    #[test]
    fn other_lines_are_left_alone() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(9), "}".repeat(9));
        for line in
            ["", "plain text", "{", r#"{"a":1"#, r#"{"a":[1]}"#, r#"{"a":1} more"#, r#"{"a":x}"#, &deep]
        {
            assert_eq!(fields(line), None, "{line}");
        }
    }

    #[test]
    fn records_line_up_by_name() {
        let records = [r#"{"a":1,"b":2}"#, r#"{"b":3}"#].map(|line| fields(line).unwrap());
        let (head, rows) = rows(&records);
        assert_eq!(head, ["a", "b"]);
        assert_eq!(rows, [["1", "2"], ["", "3"]]);
    }
}
