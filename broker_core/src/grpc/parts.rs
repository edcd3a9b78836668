//! Bytes on their way out, where they stand: a socket takes many slices with one call, so that nobody has to join them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Less than this is cheaper to copy than to send by itself.
const WORTH_A_SLICE: usize = 32 << 10;

/// Slices, one behind the other; none of them is empty.
#[derive(Debug, Default)]
pub struct Parts {
    slices: VecDeque<Bytes>,
    len: usize,
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.slices.front().map_or(&[], |slice| &slice[..])
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let filled = into.iter_mut().zip(&self.slices);
        filled.map(|(place, slice)| *place = IoSlice::new(slice)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(first) = self.slices.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.slices.pop_front();
        }
    }
}

impl From<Bytes> for Parts {
    fn from(bytes: Bytes) -> Self {
        let mut gathered = Gathered::default();
        gathered.push(bytes);
        gathered.into_parts()
    }
}

/// Parts that grow.
#[derive(Debug, Default)]
pub struct Gathered {
    parts: Parts,
    /// Behind the last slice.
    end: Vec<u8>,
}

impl Gathered {
    /// Appends a copy.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.end.extend_from_slice(bytes);
    }

    /// Appends bytes, without a copy where that pays.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.len() < WORTH_A_SLICE {
            self.copy(&bytes);
        } else {
            self.end_to_slice();
            self.slice(bytes);
        }
    }

    /// To append to what is copied.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.end
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.parts.len + self.end.len()
    }

    /// All of them.
    pub fn into_parts(mut self) -> Parts {
        self.end_to_slice();
        self.parts
    }

    fn end_to_slice(&mut self) {
        if !self.end.is_empty() {
            let end = std::mem::take(&mut self.end).into();
            self.slice(end);
        }
    }

    fn slice(&mut self, bytes: Bytes) {
        self.parts.len += bytes.len();
        self.parts.slices.push_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_in_order_however_they_are_read() {
        let large = Bytes::from(vec![7; WORTH_A_SLICE]);
        let all = [&b"ab"[..], b"c", &large, b"d", &large, &large].concat();
        let parts = || {
            let mut gathered = Gathered::default();
            gathered.copy(b"ab");
            gathered.push(Bytes::from_static(b"c"));
            gathered.push(large.clone());
            gathered.push(Bytes::from_static(b"d"));
            gathered.push(large.clone());
            gathered.push(large.clone());
            assert_eq!(gathered.len(), all.len());
            gathered.into_parts()
        };
        for step in [1, 1000, WORTH_A_SLICE, WORTH_A_SLICE + 3, all.len()] {
            let (mut parts, mut read) = (parts(), Vec::new());
            while parts.has_remaining() {
                let take = step.min(parts.remaining());
                let mut slices = [IoSlice::new(&[]); 3];
                let count = parts.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(take).collect();
                assert!(parts.chunk().starts_with(&seen[..seen.len().min(parts.chunk().len())]));
                parts.advance(seen.len());
                read.extend(seen);
            }
            assert!(read == all, "in steps of {step}");
        }
        assert_eq!(parts().copy_to_bytes(all.len()), all);
        assert!(!Parts::from(Bytes::new()).has_remaining());
    }
}
