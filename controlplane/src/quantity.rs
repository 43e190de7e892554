//! Quantities as Kubernetes writes them: a number, perhaps with decimals, and a suffix or exponent.

/// Digits that are read: more say more than any machine has.
const DIGITS_MAX: usize = 18;

/// Thousandths of a quantity, rounded down.
pub(crate) fn milli(written: &str) -> Option<u64> {
    scaled(written, 1_000)
}

/// Millionths of a quantity, rounded down.
pub(crate) fn micros(written: &str) -> Option<u64> {
    scaled(written, 1_000_000)
}

/// A quantity in whole units, rounded down.
pub(crate) fn whole(written: &str) -> Option<u64> {
    scaled(written, 1)
}

/// So many parts of each unit.
fn scaled(written: &str, parts: u128) -> Option<u64> {
    let end = written.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (number, suffix) = written.split_at(end.unwrap_or(written.len()));
    let (units, decimals) = number.split_once('.').unwrap_or((number, ""));
    if units.len() + decimals.len() > DIGITS_MAX || (units.is_empty() && decimals.is_empty()) {
        return None;
    }
    let digits: u128 = format!("{units}{decimals}").parse().ok()?;
    let (times, over) = factor(suffix)?;
    let below = 10_u128.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let value = digits.checked_mul(times)?.checked_mul(parts)? / over.checked_mul(below)?;
    u64::try_from(value).ok()
}

/// What a suffix multiplies with, and what it divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    const SMALL: [&str; 3] = ["m", "u", "n"];
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let place = |of: &[&str]| of.iter().position(|one| *one == suffix).and_then(|at| u32::try_from(at).ok());
    if let Some(at) = place(&DECIMAL) {
        return Some((1_000_u128.pow(at), 1));
    }
    if let Some(at) = place(&BINARY) {
        return Some((1_024_u128.pow(at + 1), 1));
    }
    if let Some(at) = place(&SMALL) {
        return Some((1, 1_000_u128.pow(at + 1)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::{milli, whole};

    #[test]
    fn quantities_are_read_as_kubernetes_means_them() {
        let cases = [("8", 8_000), ("7500m", 7_500), ("0.5", 500), ("1e1", 10_000), ("250000u", 250)];
        for (written, read) in cases {
            assert_eq!(milli(written), Some(read), "{written}");
        }
        let cases =
            [("110", 110), ("32Gi", 32 << 30), ("1500M", 1_500_000_000), ("1.5Ki", 1_536), ("5e-1", 0)];
        for (written, read) in cases {
            assert_eq!(whole(written), Some(read), "{written}");
        }
        for bad in ["", "x", ".", "-1", "+1", "1 Gi", "1Kib", "1e99", "9999999999999999999", "1.2.3"] {
            assert_eq!(whole(bad), None, "{bad:?}");
        }
    }
}
