//! Exact amounts, and how they become nano-dollars.

/// An exact amount: micro-dollars per hour times microseconds. A price of 999,999,999 dollars on ten million units
/// for ten thousand years fits.
pub type Exact = i128;

/// So much of an [`Exact`] amount is one nano-dollar: an hour has 3,600,000,000 microseconds, a micro-dollar 1,000
/// nano-dollars.
pub const EXACT_PER_NANO: Exact = 3_600_000;

/// Whole nano-dollars of an exact amount; what is less is not charged.
pub const fn nanos(amount: Exact) -> i128 {
    amount.div_euclid(EXACT_PER_NANO)
}

/// Divides `total` nano-dollars among parts by the method of the largest remainder (Hamilton): each gets its whole
/// nano-dollars, and what is left goes, one each, to those with the largest rest; the earlier one where two are alike.
///
/// `total` is what [`nanos`] says of the parts' sum, or one more where that was itself given one of those left. Then a
/// part without a rest is given nothing extra.
pub fn apportion(total: i128, parts: &[Exact]) -> Vec<i128> {
    let mut shares: Vec<i128> = parts.iter().map(|&part| nanos(part)).collect();
    let left = total - shares.iter().sum::<i128>();
    let left = usize::try_from(left).unwrap_or_default().min(parts.len());
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(parts[place].rem_euclid(EXACT_PER_NANO)));
    for &place in &order[..left] {
        shares[place] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_and_are_off_by_less_than_one(
            parts in prop::collection::vec(prop_oneof![Just(0), 0..3 * EXACT_PER_NANO, 0..Exact::from(u64::MAX)], 1..50),
        ) {
            let total = nanos(parts.iter().sum());
            let shares = apportion(total, &parts);
            prop_assert_eq!(shares.iter().sum::<i128>(), total);
            for (&share, &part) in shares.iter().zip(&parts) {
                prop_assert!((share * EXACT_PER_NANO - part).abs() < EXACT_PER_NANO, "{share} of {part}");
            }
            // A share that was given one more is divided again in the same way.
            for (place, &share) in shares.iter().enumerate() {
                let part = parts[place];
                let halves = [part / 2, 0, part - part / 2];
                let again = apportion(share, &halves);
                prop_assert_eq!(again.iter().sum::<i128>(), share);
                prop_assert_eq!(again[1], 0);
            }
        }
    }

    #[test]
    fn the_largest_rest_gets_what_is_left() {
        let third = EXACT_PER_NANO / 3;
        assert_eq!(apportion(1, &[third, third + 1, third - 1]), [0, 1, 0]);
        assert_eq!(apportion(1, &[third, third, third]), [1, 0, 0]);
    }
}
