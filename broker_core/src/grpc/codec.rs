//! Messages as bytes, in tonic's framing.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What a call's buffer holds at first: most messages are small, and there are thousands of calls that wait.
const BUFFER_BYTES: usize = 1 << 10;
/// Small messages leave together, up to so many bytes.
const YIELD_BYTES: usize = 64 << 10;

/// A message that knows its bytes.
pub trait Outgoing: Send + 'static {
    /// How many they are.
    fn size(&self) -> usize;
    /// Appends them.
    fn put(self, out: &mut impl BufMut);
}

impl Outgoing for Bytes {
    fn size(&self) -> usize {
        self.len()
    }

    fn put(self, out: &mut impl BufMut) {
        out.put(self);
    }
}

/// Sends `T`s and receives bytes, which are not copied out of the buffer they came in.
pub struct RawCodec<T>(PhantomData<fn(T)>);

impl<T> Default for RawCodec<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Outgoing> Codec for RawCodec<T> {
    type Encode = T;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<T: Outgoing> Encoder for RawCodec<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.size());
        item.put(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl<T> Decoder for RawCodec<T> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
