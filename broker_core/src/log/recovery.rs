//! What of a log can be trusted when it is opened.
//!
//! The tail is what lies past the last recorded fsync, which frames and `state.json` tell. Damage there is cut at the last
//! whole frame and counted, unless the system never went down and whole frames follow, which no interrupted write leaves
//! behind. Other damage seals its segment: reads of the lost offsets fail, and writing goes on behind them.
//!
//! Invariants (tests: `tests/log_recovery.rs`)
//! - R1 Nothing below the recorded fsync is cut; what is missing there is damage, be it a part of a file or the last one.
//! - R2 No offset is given again: after a clean end numbering goes on at the recorded end, and else at the ceiling where an
//!   offset may have been given that no frame tells of.
//! - R3 After an fsync that failed nothing counts as on the disk that may have been part of it: Linux takes such pages for
//!   written, so that they can be read and no later fsync writes them. It is noted in the folder, and the next opening
//!   writes the tail anew (the groups' journals, too) before it syncs.

use super::frame::Header;
use super::segment::{self, Segment};
use super::state::State;
use super::{Durability, Log};
use crate::error::{Error, Result};

/// Behind the offsets that are lost where nothing follows a segment that ends at `end`.
fn goes_on(state: &State, end: u64) -> u64 {
    if state.clean && state.end > end { state.end } else { state.ceiling.max(end + 1) }
}

/// Is there while no fsync has failed, or all was written anew since. Its removal is the note that one did, since that
/// needs no space. Never synced: after a power cut the writing is for nothing, and does no harm.
pub(super) const TRUST_FILE: &str = ".fsyncs-hold";

impl Log {
    /// Whether an fsync failed in an earlier life, so that the journals beside the log must be written anew.
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Has the next opening write anew what a failed fsync may have left in memory only.
    pub fn note_failed_sync(&self) {
        // It is gone already, or the disk is.
        let _ = self.disk.remove_file(&self.dir.join(TRUST_FILE));
    }

    /// Notes that everything beside the log was written anew as well.
    pub fn trust_again(&mut self) {
        // Without the note the next opening writes the tail anew, which costs it a moment.
        self.doubted = self.disk.create(&self.dir.join(TRUST_FILE)).is_err();
    }

    /// Finds the segments, and what of them can be trusted.
    pub(super) fn recover(&mut self) -> Result<()> {
        let names = self.disk.list(&self.dir).map_err(|err| Error::io("list", &self.dir, &err))?;
        let mut bases: Vec<u64> = Vec::new();
        let same_boot = self.state.boot_id == self.disk.boot_id() && !self.state.boot_id.is_empty();
        // What this says of the disk was true when it was stored.
        self.synced_end = self.state.end;
        let mut torn = Vec::new();
        let mut batches = Vec::new();
        for base in names.iter().filter_map(|name| segment::base_of(name)) {
            let mut synced = self.synced_end;
            let (segment, tail) =
                Segment::open(&*self.disk, &self.dir, self.state.log_id, base, |position, header| {
                    synced = synced.max(header.synced_end);
                    if header.producer_id != 0 || header.skipped > 0 {
                        batches.push((base, position, *header));
                    }
                })?;
            if let segment::Tail::Torn { bytes } = tail
                && bytes < segment::HEADER_BYTES
                && segment.bytes() == 0
                && self.segments.last().is_some_and(|before| before.end() > base)
            {
                // A roll failed and the log went on in the segment before; a power cut has undone the removal.
                self.disk.remove_file(segment.path()).map_err(|err| Error::io("remove", segment.path(), &err))?;
                continue;
            }
            bases.push(base);
            self.synced_end = synced;
            torn.push(match tail {
                segment::Tail::Whole => None,
                segment::Tail::Torn { bytes } => Some(bytes),
            });
            self.segments.push(segment);
        }
        self.doubted = !names.iter().any(|name| name == TRUST_FILE);
        if self.doubted && !self.state.clean {
            for segment in self.segments.iter().filter(|segment| segment.end() >= self.synced_end) {
                segment.write_anew().map_err(|err| Error::io("write", segment.path(), &err))?;
            }
        }
        let mut index = 0;
        while index < self.segments.len() {
            let doubted_from = self.doubted_from(index);
            let segment = &mut self.segments[index];
            let mut bad_bytes = torn[index];
            if let Some(from) = doubted_from {
                let behind = segment.verify_from(from)?;
                bad_bytes = if behind > 0 { Some(behind + bad_bytes.unwrap_or(0)) } else { bad_bytes };
            }
            // A write that never reached the disk, or a file that is gone, ends a segment on a frame's border.
            let later = bases.get(index + 1).copied();
            let ends_early = later.unwrap_or(self.state.end) > segment.end();
            let headless = segment.bytes() == 0 && bad_bytes.is_some_and(|bytes| bytes < segment::HEADER_BYTES);
            if self.state.clean && headless && later.is_none() && segment.base() >= self.state.end {
                // Left behind by a roll that failed and could not be undone: nothing was ever written into it.
                segment.renew(self.state.log_id).map_err(|err| Error::io("write", segment.path(), &err))?;
            } else if let Some(bad_bytes) = bad_bytes.or(ends_early.then_some(0)) {
                let in_tail = !self.state.clean && segment.end() >= self.synced_end;
                let followed = same_boot && (later.is_some() || segment.frame_follows()?);
                if in_tail && !followed {
                    self.cut_tail(index, bad_bytes)?;
                    break;
                }
                segment.seal_damaged(later.unwrap_or_else(|| goes_on(&self.state, segment.end())));
            }
            index += 1;
        }
        if self.segments.is_empty() && self.state.end > 0 {
            // Every file is gone. An empty one in their place has the loss told, now and at each later opening.
            self.add_segment(0).map_err(|err| Error::io("make a segment in", &self.dir, &err))?;
            let end = goes_on(&self.state, 0);
            self.segments.iter_mut().for_each(|empty| empty.seal_damaged(end));
        }
        self.note_kept(&batches);
        self.last_append_ns = self.segments.iter().map(Segment::last_append_ns).max().unwrap_or(0);
        let damaged_end = self.segments.last().and_then(|segment| segment.damage()).map(|damage| damage.end);
        let whole_end = self.segments.last().map_or(0, Segment::end);
        self.chain_end = whole_end;
        self.end = damaged_end.unwrap_or(whole_end);
        let may_have_lost = match self.options.durability {
            Durability::Memory => true,
            Durability::Os => !same_boot,
            Durability::Fsync => false,
        };
        if !self.state.clean && may_have_lost {
            self.end = self.end.max(self.state.ceiling);
        }
        // A gap that no frame tells of yet, since the process died between raising the ceiling and writing.
        self.end = self.end.max(self.state.begin);
        if !self.state.clean {
            // What survived the crash may be in the page cache only.
            for segment in &self.segments {
                if segment.end() >= self.synced_end {
                    segment.file().sync().map_err(|err| Error::io("sync", segment.path(), &err))?;
                }
            }
            self.disk.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))?;
        }
        // Never inside a gap: recovery compares it with where segments end.
        self.synced_end = self.chain_end;
        Ok(())
    }

    /// Notes the producers and gaps of frames (segment, position, header) that were kept.
    fn note_kept(&mut self, frames: &[(u64, u64, Header)]) {
        for (base, position, header) in frames {
            let kept = self.segments.iter().find(|segment| segment.base() == *base);
            if kept.is_some_and(|segment| *position < segment.bytes()) {
                if header.producer_id != 0 {
                    // All of them were let in once; those that were forgotten since are again.
                    self.producers.admit(header.producer_id, header.append_ns);
                }
                self.producers.note(header);
                self.gaps.note(header.skipped_range());
            }
        }
    }

    /// From which offset on the frames of a segment are to be verified, if any are.
    fn doubted_from(&self, index: usize) -> Option<u64> {
        let end = self.segments[index].end();
        if self.state.clean {
            // Nothing but frames without records at the very end: the next opening could not tell them from newer ones, and
            // their damage would take along what is written behind them until then.
            return (index + 1 == self.segments.len()).then_some(end);
        }
        (end >= self.synced_end).then_some(self.synced_end)
    }

    /// Cuts the torn tail that begins in segment `index`, and removes the segments behind it.
    fn cut_tail(&mut self, index: usize, bad_bytes: u64) -> Result<()> {
        // Torn, most likely; but damage to the last frames looks the same, and their offsets must not come again.
        self.state.begin = self.state.ceiling;
        self.state.store(&*self.disk, &self.dir)?;
        self.recovered_cut_bytes += bad_bytes;
        for segment in self.segments.drain(index + 1..).rev() {
            self.recovered_cut_bytes += segment.bytes();
            self.disk.remove_file(segment.path()).map_err(|err| Error::io("remove", segment.path(), &err))?;
        }
        let segment = &mut self.segments[index];
        if segment.bytes() == 0 && index == 0 {
            // Not even the segment's own header is whole. Its name keeps the end of the log, so the file stays.
            let renewed = segment.renew(self.state.log_id);
            return renewed.map_err(|err| Error::io("write", segment.path(), &err));
        }
        if segment.bytes() == 0 {
            self.disk.remove_file(segment.path()).map_err(|err| Error::io("remove", segment.path(), &err))?;
            self.segments.truncate(index);
            return Ok(());
        }
        segment.truncate().map_err(|err| Error::io("cut", segment.path(), &err))
    }
}
