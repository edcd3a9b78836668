//! A socket in TLS. Of rustls this uses the interface without buffers: it takes records where the socket has put them, and
//! puts records where the socket takes them from, so that each byte is copied twice in here and never moved again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are taken from a socket at a time, at most. A socket that never has as many is given less room.
const READ_BYTES: usize = 128 << 10;
/// Bytes that are encrypted at a time, at most.
const WRITE_BYTES: usize = 128 << 10;
/// Plaintext of a record, at most, and what a record has beside it.
const RECORD_BYTES: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 64;
/// Rustls' words for a connection that ends in the middle.
const CUT_OFF: &str = "peer closed connection without sending TLS close_notify: \
                       https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";

/// One end of a connection.
pub trait End: Unpin {
    /// What rustls knows of it.
    type Data;

    /// Takes up records, up to where something is to be done.
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether the peers have not agreed yet.
    fn is_handshaking(&self) -> bool;
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }
}

/// A socket in TLS, once the peers have agreed.
pub struct TlsStream<S, E> {
    socket: S,
    end: E,
    /// Records that came.
    incoming: Window,
    /// Records that are to leave.
    outgoing: Window,
    /// What came and found no room with whoever reads.
    plain: Window,
    /// The peer has said that it sends no more.
    ended: bool,
    /// This end has said so.
    closed: bool,
}

/// Bytes in use of a buffer.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Window {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn used(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn used_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Lets go of the first ones.
    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for so many behind them.
    fn room(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < count && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() - self.end < count {
            self.bytes.resize(self.end + count, 0);
        }
        &mut self.bytes[self.end..]
    }

    fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

/// What is to be written.
enum Write<'a, 'b> {
    Nothing,
    /// These, of which is left what could not be.
    Data(&'a mut &'b [u8]),
    /// That this end sends no more.
    Close,
}

/// What an end waits for.
enum Waits {
    /// Nothing: it has done something.
    Not,
    /// Records of the peer.
    ForPeer,
    /// Nothing will ever come.
    ForNothing,
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> TlsStream<S, E> {
    /// Agrees with the peer.
    pub async fn agreed(socket: S, end: E) -> io::Result<Self> {
        let (incoming, outgoing, plain) = (Window::default(), Window::default(), Window::default());
        let mut stream = Self { socket, end, incoming, outgoing, plain, ended: false, closed: false };
        std::future::poll_fn(|context| stream.poll_agree(context)).await?;
        Ok(stream)
    }

    fn poll_agree(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.step(None, Write::Nothing) {
                Ok(Waits::Not) => {}
                Ok(Waits::ForPeer | Waits::ForNothing) => {
                    ready!(self.poll_send(context))?;
                    if !self.end.is_handshaking() {
                        return Poll::Ready(Ok(()));
                    }
                    if ready!(self.poll_receive(context))? == 0 {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
                    }
                }
                Err(error) => return Poll::Ready(Err(self.failed(error, context))),
            }
        }
    }

    /// Does the next thing. What is read goes to `into`, as far as there is room.
    fn step(&mut self, mut into: Option<&mut ReadBuf<'_>>, write: Write<'_, '_>) -> Result<Waits, rustls::Error> {
        let UnbufferedStatus { mut discard, state, .. } = self.end.process(self.incoming.used_mut());
        let waits = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    let room = into.as_ref().filter(|_| self.plain.is_empty()).map_or(0, |into| into.remaining());
                    let (now, later) = record.payload.split_at(room.min(record.payload.len()));
                    if let Some(into) = &mut into {
                        into.put_slice(now);
                    }
                    self.plain.append(later);
                }
                Ok(Waits::Not)
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let mut written = data.encode(self.outgoing.room(RECORD_BYTES));
                if let Err(EncodeError::InsufficientSize(size)) = &written {
                    written = data.encode(self.outgoing.room(size.required_size));
                }
                self.outgoing.end += written.unwrap_or(0); // there was room, and it is encoded once
                Ok(Waits::Not)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done(); // it leaves in front of all that follows
                Ok(Waits::Not)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match write {
                Write::Nothing => Ok(Waits::ForPeer),
                Write::Data(from) => encrypt(&mut traffic, from, &mut self.outgoing).map(|()| Waits::ForPeer),
                Write::Close => {
                    let written = traffic.queue_close_notify(self.outgoing.room(RECORD_BYTES));
                    self.outgoing.end += written.unwrap_or(0); // keys that are used up end the connection as well
                    Ok(Waits::ForPeer)
                }
            },
            Ok(ConnectionState::BlockedHandshake) => Ok(Waits::ForPeer),
            Ok(ConnectionState::PeerClosed) => {
                self.ended = true;
                Ok(Waits::Not)
            }
            Ok(_) => Ok(Waits::ForNothing),
            Err(error) => Err(error),
        };
        self.incoming.consume(discard);
        waits
    }

    /// Encrypts what there is room for, and says how much that was.
    fn put(&mut self, bytes: &[u8], context: &mut Context<'_>) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES.saturating_sub(self.outgoing.used().len()))];
        let mut left = bytes;
        while !left.is_empty() {
            match self.step(None, Write::Data(&mut left)) {
                Ok(Waits::Not) => {}
                Ok(Waits::ForPeer) if left.is_empty() => {}
                Ok(Waits::ForPeer | Waits::ForNothing) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(self.failed(error, context)),
            }
        }
        Ok(bytes.len())
    }

    /// Sends all records that are to leave.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, self.outgoing.used()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.outgoing.consume(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what has come from the socket; 0: it has ended.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.incoming.used().len() > READ_BYTES {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "message buffer full")));
        }
        let mut room = ReadBuf::new(self.incoming.room(RECORD_BYTES + RECORD_OVERHEAD));
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
        let (received, is_full) = (room.filled().len(), room.remaining() == 0);
        self.incoming.end += received;
        if is_full && self.incoming.bytes.len() < READ_BYTES {
            self.incoming.bytes.resize(READ_BYTES, 0);
        }
        Poll::Ready(Ok(received))
    }

    /// Why a connection has failed. The peer is told so, too, if that can be done at once.
    fn failed(&mut self, error: rustls::Error, context: &mut Context<'_>) -> io::Error {
        while let Ok(Waits::Not) = self.step(None, Write::Nothing) {}
        let _ = self.poll_send(context);
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Encrypts all of `from`.
fn encrypt<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    from: &mut &[u8],
    into: &mut Window,
) -> Result<(), rustls::Error> {
    let records = from.len().div_ceil(RECORD_BYTES);
    let mut written = traffic.encrypt(from, into.room(from.len() + records * RECORD_OVERHEAD));
    if let Err(EncryptError::InsufficientSize(size)) = &written {
        written = traffic.encrypt(from, into.room(size.required_size));
    }
    into.end += written.map_err(|_| rustls::Error::EncryptError)?;
    *from = &[];
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> AsyncRead for TlsStream<S, E> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if !this.plain.is_empty() {
                let taken = this.plain.used().len().min(buf.remaining());
                buf.put_slice(&this.plain.used()[..taken]);
                this.plain.consume(taken);
            }
            while buf.remaining() > 0 && !this.ended {
                match this.step(Some(buf), Write::Nothing) {
                    Ok(Waits::Not) => {}
                    Ok(Waits::ForPeer | Waits::ForNothing) => break,
                    Err(error) => return Poll::Ready(Err(this.failed(error, context))),
                }
            }
            // What the peer is to be told meanwhile; where that has to wait, it wakes this task as well.
            if let Poll::Ready(Err(error)) = this.poll_send(context) {
                return Poll::Ready(Err(error));
            }
            if buf.filled().len() > before || buf.remaining() == 0 || this.ended {
                return Poll::Ready(Ok(()));
            }
            if ready!(this.poll_receive(context))? == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, CUT_OFF)));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> AsyncWrite for TlsStream<S, E> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let mut written = 0;
        for slice in slices {
            let put = this.put(slice, context)?;
            written += put;
            if put < slice.len() {
                break;
            }
        }
        // What does not leave at once leaves in front of what is written next, or with a flush.
        if let Poll::Ready(Err(error)) = this.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) {
            // An end that failed has said so already.
            while let Ok(Waits::Not) = this.step(None, Write::Close) {}
        }
        ready!(this.poll_send(context))?;
        match ready!(Pin::new(&mut this.socket).poll_shutdown(context)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
