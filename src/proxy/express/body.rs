//! A body on its way from one buffer to the other, whichever way it goes.

use std::io::Write as _;

use super::buffer::{Buffers, Inbox, Outbox};
use super::field::{self, Field};
use super::framing::{Broken, Framing, Piece};

/// Takes what came of a body, and notes its data: one of known length passes as it is, any other is put
/// into chunks.
pub fn take(
    framing: &mut Framing,
    inbox: &mut Inbox,
    outbox: &mut Outbox,
    buffers: &Buffers,
    mut note: impl FnMut(&[u8]),
) -> Result<(), Broken> {
    while !outbox.is_passing() {
        let passes = matches!(framing, Framing::Length(_));
        let bytes = inbox.rest();
        let piece = framing.next(bytes)?;
        match piece {
            Piece::Partial => return Ok(()),
            Piece::Framing(_) => {}
            Piece::Data(count) => {
                note(&bytes[..count]);
                if passes {
                    outbox.pass(count);
                    return Ok(());
                }
                chunk(outbox, buffers, &bytes[..count]);
            }
            Piece::Last(_) => outbox.own(buffers).extend_from_slice(b"0\r\n"),
            Piece::Trailer(count) => trailer(outbox.own(buffers), &bytes[..count]),
            Piece::End(_) => outbox.own(buffers).extend_from_slice(b"\r\n"),
        }
        inbox.consume(piece.bytes());
    }
    Ok(())
}

/// One chunk for each piece that came, so that what is framed as an event stays so.
fn chunk(outbox: &mut Outbox, buffers: &Buffers, data: &[u8]) {
    let own = outbox.own(buffers);
    own.reserve(data.len() + 20);
    // Writing into memory cannot fail.
    drop(write!(own, "{:X}\r\n", data.len()));
    outbox.own_body(data);
    outbox.own(buffers).extend_from_slice(b"\r\n");
}

/// A trailer passes as it came, unless it is about framing or a hop: those belong into a head.
fn trailer(out: &mut Vec<u8>, line: &[u8]) {
    let name = memchr::memchr(b':', line).map_or(line, |colon| &line[..colon]);
    let passes =
        std::str::from_utf8(name).is_ok_and(|name| field::is_for_trailers(Field::of(name)));
    if passes {
        out.extend_from_slice(line);
    }
}
