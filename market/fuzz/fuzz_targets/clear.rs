//! Whatever text is given as a book, it is refused in one line or cleared, and what is cleared keeps the rules that
//! can be seen from outside: no more sold than there is, nobody above the quantity, gangs whole or nothing, prices not
//! below the reserve.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use market::clear::{ClearInput, clear, clear_json};

fn check(input: &ClearInput) {
    let output = clear(input).expect("it was cleared before");
    let mut sold: BTreeMap<&str, u64> = BTreeMap::new();
    for (bid, outcome) in input.bids.iter().zip(&output.bids) {
        let mut units = 0;
        for won in &outcome.units {
            assert!(bid.options.iter().any(|option| option.market == won.market), "{outcome:?}");
            assert!(won.units > 0, "{outcome:?}");
            *sold.entry(won.market.as_str()).or_default() += u64::from(won.units);
            units += won.units;
        }
        assert!(units <= bid.quantity, "{outcome:?}");
        assert!(units == 0 || units >= bid.min_quantity, "{outcome:?}");
    }
    for (market, outcome) in input.markets.iter().zip(&output.markets) {
        let total = sold.get(market.market.as_str()).copied().unwrap_or(0);
        assert_eq!(u64::from(outcome.sold), total, "{outcome:?}");
        assert!(outcome.sold <= market.supply, "{outcome:?}");
        assert_eq!(outcome.price.is_some(), market.supply > 0, "{outcome:?}");
        assert!(outcome.price.is_none_or(|price| price >= market.reserve), "{outcome:?}");
        if outcome.sold < market.supply {
            assert_eq!(outcome.price, Some(market.reserve), "{outcome:?}");
        }
    }
}

fuzz_target!(|payload: &[u8]| {
    let Ok(text) = std::str::from_utf8(payload) else { return };
    match clear_json(text) {
        Ok(outcome) => {
            let input: ClearInput = serde_json::from_str(text).expect("it was read before");
            check(&input);
            assert_eq!(clear_json(text).as_deref(), Ok(outcome.as_str()), "the same again");
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && line.chars().count() < 1_000, "{line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
});
