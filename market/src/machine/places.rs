//! Records by place: a list in chunks, so that growing moves nothing.
//!
//! A list in one piece is copied whenever it is full, all of a million records at once, into memory that nobody has
//! touched yet: the stream would stand still for as long as thousands of commands take.

/// Records in one chunk, a power of two.
const CHUNK: usize = 4_096;

/// Records with the numbers 0, 1, 2, ….
#[derive(Clone, Debug)]
pub(super) struct Places<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Places<T> {
    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&T> {
        self.chunks.get(place as usize / CHUNK)?.get(place as usize % CHUNK)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.chunks.get_mut(place as usize / CHUNK)?.get_mut(place as usize % CHUNK)
    }

    /// Adds a record; says its place.
    pub(super) fn push(&mut self, record: T) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { return 0 };
        chunk.push(record);
        (full + chunk.len() - 1) as u32
    }

    /// All records, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + '_ {
        self.chunks.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let mut places = Places::default();
        let count = 3 * CHUNK as u32 + 5;
        for number in 0..count {
            assert!(places.get(number).is_none());
            assert_eq!(places.push(u64::from(number)), number);
        }
        if let Some(record) = places.get_mut(CHUNK as u32) {
            *record += 1_000_000;
        }
        let expected = |number: u32| u64::from(number) + if number == CHUNK as u32 { 1_000_000 } else { 0 };
        assert!((0..count).all(|number| places.get(number) == Some(&expected(number))));
        assert!(places.iter().copied().eq((0..count).map(expected)));
        assert!(places.get(u32::MAX).is_none() && places.get_mut(count).is_none());
    }
}
