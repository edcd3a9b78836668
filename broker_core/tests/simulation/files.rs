//! The files of a partition, read after docs/format.md alone: every byte is part of a frame, and every gap is explained.

use std::path::{Path, PathBuf};

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Checks the segments below `dir`, a partition's folder.
pub fn check(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
    let mut end = None;
    let mut last_append_ns = i64::MIN;
    for (path, bytes) in files {
        if path.parent() != Some(dir) || path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let place = path.display();
        assert!(bytes.len() >= 40 && bytes.starts_with(b"TBRKLOG\0"), "{place}: no header");
        assert_eq!(u32_at(bytes, 12), crc32c::crc32c(&bytes[16..40]), "{place}: header CRC");
        let base = u64_at(bytes, 32);
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{base:020}.log"));
        let mut at = end.unwrap_or(base);
        assert_eq!(base, at, "{place}: a gap between segments that no frame explains");
        let mut position = 40;
        while position < bytes.len() {
            assert!(bytes.len() - position >= 60, "{place}: half a frame at byte {position}");
            let frame = &bytes[position..];
            let len = 8 + usize::try_from(u32_at(frame, 0)).unwrap();
            assert!(frame.len() >= len, "{place}: half a frame at byte {position}");
            assert_eq!(u32_at(frame, 4), crc32c::crc32c(&frame[8..len]), "{place}: CRC at byte {position}");
            let (base, count, skipped) = (u64_at(frame, 8), u32_at(frame, 16), u64_at(frame, 20));
            assert_eq!(at + skipped, base, "{place}: a gap at byte {position} that `skipped` does not explain");
            let append_ns = u64_at(frame, 28).cast_signed();
            assert!(
                append_ns >= last_append_ns,
                "{place}: time goes back from {last_append_ns} to {append_ns} at byte {position}"
            );
            assert!(u64_at(frame, 52) <= base, "{place}: synced_end lies ahead at byte {position}");
            (at, last_append_ns, position) = (base + u64::from(count), append_ns, position + len);
        }
        end = Some(at);
    }
}
