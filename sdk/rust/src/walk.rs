//! A walk over records of any size.

use crate::call::Call;
use crate::cbor::Step;
use crate::error::{Code, Error, Result};
use crate::input::Input;
use crate::output::Output;
use crate::record::Checker;
use crate::text::Text;

/// What [`walk`] shows checked records to.
///
/// Records that are whole in the input's buffer come one by one to `record` and then together to
/// `batch`. One that fills the buffer comes to `fragment` in pieces, so that memory does not follow
/// the size of records; the first piece holds at least its head, partition and key.
pub trait Visitor {
    /// One whole record.
    fn record(&mut self, encoded: &[u8]) -> Result<()>;
    /// The whole records since the last batch.
    fn batch(&mut self, encoded: &[u8]) -> Result<()>;
    /// A piece of one record; `more` follow.
    fn fragment(&mut self, piece: &[u8], more: bool) -> Result<()>;
}

/// Reads the input to its end, checks every record and shows it to the visitor. Errors name the record
/// as the path.
pub fn walk(input: &mut Input<'_>, visitor: &mut impl Visitor) -> Result<()> {
    let mut checker = Checker::new();
    let mut done = 0; // records that have ended
    let mut checked = 0; // bytes of the window
    let mut open = false; // fragments of the record under way have been shown
    while input.fill()? {
        let window = input.bytes();
        let mut seen = 0; // bytes of the window that have been shown
        let mut whole = 0; // where its last whole record ends
        loop {
            match checker.check(window, checked) {
                Ok(Step::Whole(end)) => {
                    if open {
                        visitor.fragment(&window[..end], false)?;
                        open = false;
                        seen = end;
                    } else {
                        visitor.record(&window[whole..end])?;
                    }
                    done += 1;
                    whole = end;
                    checked = end;
                }
                Ok(Step::Short(at)) => {
                    checked = at;
                    break;
                }
                Err(f) => return Err(f.error(input.offset()).path(place(done))),
            }
        }
        if whole > seen {
            visitor.batch(&window[seen..whole])?;
            seen = whole;
        }
        if seen == 0 && input.is_full() {
            visitor.fragment(&window[..checked], true)?;
            open = true;
            seen = checked;
        }
        input.consume(seen);
        checked -= seen;
    }
    if checker.between() {
        return Ok(());
    }
    let end = input.offset() + input.bytes().len() as u64;
    Err(Error::corrupt(end, "the input ends inside a record").path(place(done)))
}

/// The record under way, counted from 1.
fn place(done: u64) -> Text {
    Text::new().str("record ").num(done + 1)
}

/// A visitor that hands records on unchanged, straight from the input's buffer.
pub struct Pass<'o, 'b> {
    /// Where to.
    pub out: &'o mut Output<'b>,
    /// Whether that takes records; native state has no fragments.
    pub records: bool,
}

impl Visitor for Pass<'_, '_> {
    #[inline(always)]
    fn record(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn batch(&mut self, encoded: &[u8]) -> Result<()> {
        self.out.emit(encoded, false)
    }

    fn fragment(&mut self, piece: &[u8], more: bool) -> Result<()> {
        self.out.emit(piece, more && self.records)
    }
}

/// The `migrate` of a serializer that has had one schema so far: from that to itself records pass, and
/// any other way is [`Code::Version`].
pub fn migrate_none(call: &Call<'_>, schema: u64, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
    match (call.from, call.to) {
        (Some(from), Some(to)) if from == schema && to == schema => walk(records, &mut Pass { out, records: true }),
        (Some(from), Some(to)) => {
            let msg = Text::new().str("this serializer knows schema ").num(schema).str(" only: there is no way from ");
            Err(Error::new(Code::Version, msg.num(from).str(" to ").num(to)))
        }
        _ => Err(Error::new(Code::Internal, "the call does not say from which schema to which")),
    }
}
