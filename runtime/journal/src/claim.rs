//! Who works on a stream. A claim saves work; it does not protect anything: the fence does.

use std::fmt;

use sqlx::Row as _;

use crate::database::{Journal, bound, check_stream, is_name, name_bound};
use crate::error::JournalError;

/// The name of one run of one process. Two processes that run at the same time never share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(String);

impl Owner {
    /// Takes a name of 1 to 80 printable ASCII characters without blanks.
    ///
    /// # Errors
    /// [`JournalError::Bound`] for any other name.
    pub fn new(name: impl Into<String>) -> Result<Self, JournalError> {
        let name = name.into();
        if is_name(&name) {
            Ok(Self(name))
        } else {
            Err(bound("-", "owner", &format!("{name:?}"), name_bound()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Who holds a stream, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The holder. Somebody else's name: the stream is taken.
    pub owner: Owner,
    /// Counts holdings: grows whenever the stream changes hands or is taken up again after it ran out, and
    /// never falls. It goes with everything that leaves the system, so that receivers refuse what is older.
    pub generation: u64,
    /// When the claim runs out unless it is renewed, UTC microseconds.
    pub expires_at_micros: i64,
}

impl Claim {
    /// Whether `owner` holds the stream.
    pub fn is_held_by(&self, owner: &Owner) -> bool {
        self.owner == *owner
    }
}

/// Takes the stream where it is free, renews it where it is mine, leaves it where it is not: in one statement,
/// so that two claims at once cannot both succeed.
const CLAIM: &str = "
INSERT INTO claims (stream, owner, generation, expires_at_micros) VALUES ($1, $2, 1, $4)
ON CONFLICT (stream) DO UPDATE SET
  owner = excluded.owner,
  generation = CASE WHEN claims.owner = excluded.owner AND claims.expires_at_micros > $3
               THEN claims.generation ELSE claims.generation + 1 END,
  expires_at_micros = excluded.expires_at_micros
WHERE claims.owner = excluded.owner OR claims.expires_at_micros <= $3
RETURNING owner, generation, expires_at_micros";

const HOLDER: &str = "SELECT owner, generation, expires_at_micros FROM claims WHERE stream = $1";

/// The row stays, because the generation must never be forgotten.
const RELEASE: &str = "UPDATE claims SET expires_at_micros = 0 WHERE stream = $1 AND owner = $2";
const RELEASE_ALL: &str = "UPDATE claims SET expires_at_micros = 0 WHERE owner = $1";

impl Journal {
    /// Claims `stream` for `owner` from `now_micros` for `ttl_micros`, or renews the claim. Returns the claim in
    /// force, which is somebody else's where theirs has not run out.
    ///
    /// # Errors
    /// A `ttl_micros` that is not positive, or a database error; the claim may then have been made or not.
    pub async fn claim(
        &self,
        stream: &str,
        owner: &Owner,
        now_micros: i64,
        ttl_micros: i64,
    ) -> Result<Claim, JournalError> {
        const OPERATION: &str = "claim";
        check_stream(stream)?;
        let expires_at_micros = now_micros.checked_add(ttl_micros).filter(|_| ttl_micros > 0);
        let Some(expires_at_micros) = expires_at_micros else {
            return Err(bound(stream, "ttl_micros", &ttl_micros.to_string(), "positive".to_owned()));
        };
        let mut lent = self.writer(OPERATION, stream).await?;
        let work = async {
            let claim =
                sqlx::query(CLAIM).bind(stream).bind(owner.as_str()).bind(now_micros).bind(expires_at_micros);
            // All of it, not the first row only: SQLite commits when the statement has run to its end.
            let row = match claim.fetch_all(&mut *lent.connection()).await?.pop() {
                Some(row) => row,
                None => sqlx::query(HOLDER).bind(stream).fetch_one(lent.connection()).await?,
            };
            Ok(Claim {
                owner: Owner(row.try_get(0)?),
                generation: row.try_get::<i64, _>(1)? as u64,
                expires_at_micros: row.try_get(2)?,
            })
        };
        let claim = self.within(work).await.map_err(|source| self.failed(OPERATION, stream, source))?;
        lent.give_back();
        Ok(claim)
    }

    /// Gives `stream` back, so that another need not wait for the claim to run out. Nothing happens where
    /// `owner` does not hold it.
    ///
    /// # Errors
    /// A database error; the claim then runs out by itself.
    pub async fn release(&self, stream: &str, owner: &Owner) -> Result<(), JournalError> {
        const OPERATION: &str = "release";
        check_stream(stream)?;
        let mut lent = self.writer(OPERATION, stream).await?;
        let query = sqlx::query(RELEASE).bind(stream).bind(owner.as_str());
        let done = self.within(query.execute(lent.connection())).await;
        done.map_err(|source| self.failed(OPERATION, stream, source))?;
        lent.give_back();
        Ok(())
    }

    /// Gives back every stream that `owner` holds, in its name: for one that knows it is gone.
    ///
    /// # Errors
    /// A database error; the claims then run out by themselves.
    pub async fn release_all(&self, owner: &Owner) -> Result<(), JournalError> {
        const OPERATION: &str = "release all";
        let mut lent = self.writer(OPERATION, "-").await?;
        let query = sqlx::query(RELEASE_ALL).bind(owner.as_str());
        let done = self.within(query.execute(lent.connection())).await;
        done.map_err(|source| self.failed(OPERATION, "-", source))?;
        lent.give_back();
        Ok(())
    }
}
