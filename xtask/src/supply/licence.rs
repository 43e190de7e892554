//! SPDX licence expressions, as far as crates use them.

use std::fmt;

/// Nested brackets beyond this are refused.
const DEPTH: usize = 16;

/// Why an expression cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(&'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

/// Whether a choice among the expression's alternatives exists that uses only allowed licences. `AND` binds
/// closer than `OR`; `X WITH Y` is one licence of that name; the old `X/Y` means `X OR Y`.
pub(super) fn allows(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, Unreadable> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed };
    let result = reader.any_of(0)?;
    if reader.words.is_empty() { Ok(result) } else { Err(Unreadable("words are left over")) }
}

struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.next();
        }
        found
    }

    fn any_of(&mut self, depth: usize) -> Result<bool, Unreadable> {
        let mut result = self.all_of(depth)?;
        while self.take("OR") {
            result |= self.all_of(depth)?;
        }
        Ok(result)
    }

    fn all_of(&mut self, depth: usize) -> Result<bool, Unreadable> {
        let mut result = self.one(depth)?;
        while self.take("AND") {
            result &= self.one(depth)?;
        }
        Ok(result)
    }

    fn one(&mut self, depth: usize) -> Result<bool, Unreadable> {
        match self.next() {
            None => Err(Unreadable("it ends where a licence should stand")),
            Some("OR" | "AND" | "WITH" | ")") => Err(Unreadable("a licence is missing")),
            Some("(") if depth == DEPTH => Err(Unreadable("its brackets are nested too deep")),
            Some("(") => {
                let result = self.any_of(depth + 1)?;
                if self.take(")") { Ok(result) } else { Err(Unreadable("a bracket is not closed")) }
            }
            Some(id) if self.take("WITH") => {
                let exception = self.next().ok_or(Unreadable("an exception is missing"))?;
                Ok((self.allowed)(&format!("{id} WITH {exception}")))
            }
            Some(id) => Ok((self.allowed)(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::allows;

    fn read(expression: &str) -> Option<bool> {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        allows(expression, &|id| allowed.contains(&id)).ok()
    }

    #[test]
    fn expressions_mean_what_they_say() {
        for (expression, expected) in [
            ("MIT", Some(true)),
            ("GPL-3.0", Some(false)),
            ("MIT OR GPL-3.0", Some(true)),
            ("GPL-3.0 OR MIT AND LGPL-2.1", Some(false)),
            ("(GPL-3.0 OR MIT) AND Unicode-3.0", Some(true)),
            ("MIT AND (GPL-3.0 OR LGPL-2.1)", Some(false)),
            ("Unlicense/MIT", Some(true)),
            ("Apache-2.0 / MIT", Some(true)),
            ("Apache-2.0 WITH LLVM-exception", Some(true)),
            ("MIT WITH LLVM-exception", Some(false)),
        ] {
            assert_eq!(read(expression), expected, "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let deep = format!("{}MIT{}", "(".repeat(99), ")".repeat(99));
        for expression in ["", "OR", "MIT OR", "MIT MIT", "(MIT", "MIT)", "MIT WITH", deep.as_str()] {
            assert_eq!(read(expression), None, "{expression}");
        }
    }
}
