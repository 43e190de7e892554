//! Prices and instants as plain integers, for snapshots: their usual form is text.

/// A price as micro-dollars per hour.
pub(super) mod price {
    use proto::Price;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(in crate::view) fn serialize<S: Serializer>(price: &Price, out: S) -> Result<S::Ok, S::Error> {
        price.micros().serialize(out)
    }

    pub(in crate::view) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Price, D::Error> {
        Price::from_micros(u64::deserialize(from)?)
            .ok_or_else(|| de::Error::custom("a price is out of range"))
    }
}

/// A price that may be missing.
pub(super) mod price_option {
    use proto::Price;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[allow(clippy::ref_option)] // serde passes a reference
    pub(in crate::view) fn serialize<S: Serializer>(
        price: &Option<Price>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        price.map(Price::micros).serialize(out)
    }

    pub(in crate::view) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Price>, D::Error> {
        let Some(micros) = Option::<u64>::deserialize(from)? else {
            return Ok(None);
        };
        Price::from_micros(micros).map(Some).ok_or_else(|| de::Error::custom("a price is out of range"))
    }
}

/// An instant as microseconds since 1970.
pub(super) mod instant {
    use proto::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(in crate::view) fn serialize<S: Serializer>(instant: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        instant.micros().serialize(out)
    }

    pub(in crate::view) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(from).map(Timestamp::from_micros)
    }
}

/// An instant that may be missing.
pub(super) mod instant_option {
    use proto::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option)] // serde passes a reference
    pub(in crate::view) fn serialize<S: Serializer>(
        instant: &Option<Timestamp>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        instant.map(Timestamp::micros).serialize(out)
    }

    pub(in crate::view) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(Timestamp::from_micros))
    }
}

/// Settings and rules as their JSON, which tells fields apart by name and so survives a new one.
pub(super) mod text {
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub(in crate::view) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        serde_json::to_string(value).map_err(ser::Error::custom)?.serialize(out)
    }

    pub(in crate::view) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}
