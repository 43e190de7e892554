//! Bytes that wait for an endpoint.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Small pieces are collected into chunks of about this size, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// First allocation of a chunk, in bytes.
const FIRST_BYTES: usize = 4 << 10;

/// Bytes in order. What arrives at an empty queue is kept as it is, because it will be gone at once. What arrives
/// behind other bytes is copied: a piece of a received frame holds on to the whole frame, so that many small pieces
/// for an endpoint that takes nothing would cost many times their size.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Queue {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.bytes == 0 {
            self.bytes = data.len();
            self.chunks.push_back(data);
            return;
        }
        self.bytes += data.len();
        if self.tail.len() + data.len() > CHUNK_BYTES && !self.tail.is_empty() {
            self.seal();
        }
        if self.tail.is_empty() {
            self.tail = BytesMut::with_capacity(data.len().max(FIRST_BYTES));
        }
        self.tail.extend_from_slice(&data);
    }

    /// The first bytes, none if there are none. Costs no copy.
    pub(crate) fn front(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        self.chunks.front().cloned()
    }

    /// Forgets the first `count` bytes and returns how many there were to forget.
    pub(crate) fn take(&mut self, count: usize) -> usize {
        let mut left = count.min(self.bytes);
        let taken = left;
        while left > 0 {
            if self.chunks.is_empty() {
                self.seal();
            }
            let Some(front) = self.chunks.front_mut() else { break };
            if front.len() > left {
                let _gone = front.split_to(left);
                left = 0;
            } else {
                left -= front.len();
                self.chunks.pop_front();
            }
        }
        self.bytes -= taken;
        if self.bytes == 0 {
            // An idle connection keeps no memory.
            *self = Queue::default();
        }
        taken
    }

    /// Forgets everything and returns how much it was.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::Queue;

    proptest! {
        /// Against a plain vector: the same bytes in the same order, whatever the pieces.
        #[test]
        fn bytes_come_out_as_they_went_in(steps in prop::collection::vec((0_usize..100_000, 0_usize..120_000), 1..40)) {
            let mut queue = Queue::default();
            let mut expected: Vec<u8> = Vec::new();
            let mut next = 0_u8;
            for (push, take) in steps {
                let piece: Vec<u8> = (0..push).map(|_| { next = next.wrapping_add(31); next }).collect();
                expected.extend_from_slice(&piece);
                queue.push(Bytes::from(piece));
                prop_assert_eq!(queue.bytes(), expected.len());
                if let Some(front) = queue.front() {
                    prop_assert!(!front.is_empty());
                    prop_assert_eq!(&front[..], &expected[..front.len()]);
                }
                let taken = queue.take(take);
                prop_assert_eq!(taken, take.min(expected.len()));
                expected.drain(..taken);
            }
            let mut rest = Vec::new();
            while let Some(front) = queue.front() {
                rest.extend_from_slice(&front);
                queue.take(front.len());
            }
            prop_assert_eq!(rest, expected);
            prop_assert!(queue.is_empty());
        }
    }

    #[test]
    fn what_waits_behind_other_bytes_does_not_hold_on_to_its_frame() {
        let frame = Bytes::from(vec![7_u8; 1 << 20]);
        let mut queue = Queue::default();
        queue.push(Bytes::from_static(b"first"));
        for at in 0..100 {
            queue.push(frame.slice(at..=at));
        }
        assert!(frame.is_unique());
    }
}
