//! Segments written by a program of choices: honest frames, except where the input asks for a lie.
//! A few bytes make a segment that passes every checksum and is wrong in one place.
//!
//! Never here: a judgement. Next rooms: [`crate::scan`], [`crate::directory`].

use annals_wal::format::{
    self, Digest, FRAME_HEADER_LEN, FrameHeader, Hold, IndexBlock, KIND_CLOSE, KIND_OPEN,
    KIND_SEAL, KIND_TRIM, OwnBody, SEGMENT_HEADER_LEN, SealBody, SealReference, SegmentHeader,
};
use annals_wal::{Generation, Lsn, Sequence};

use crate::input::Input;
use crate::mend::LOG_ID;

/// At most this many frames in a segment: more say nothing new and take time.
const FRAMES_MAX: usize = 48;

/// What a segment takes over from the one before it.
#[derive(Clone, Debug)]
pub struct State {
    pub sequence: u64,
    pub last_lsn: u64,
    pub generation: u64,
    pub head: u64,
    pub holds: Vec<Hold>,
    pub previous: Option<SealReference>,
}

impl Default for State {
    fn default() -> State {
        State {
            sequence: 1,
            last_lsn: 0,
            generation: 1,
            head: 1,
            holds: Vec::new(),
            previous: None,
        }
    }
}

/// A segment in the making.
pub struct Forge<'s> {
    pub state: &'s mut State,
    pub header: SegmentHeader,
    file: Vec<u8>,
    /// All frame headers, for the digest of the seal.
    headers: Vec<u8>,
    /// Where frames begin: places that a lag can point at.
    starts: Vec<usize>,
    records: u64,
    first_lsn: Option<u64>,
    /// Of the record in the making.
    stream: u32,
    /// What an honest seal's index says.
    index: Vec<IndexBlock>,
}

impl Forge<'_> {
    /// A header for the next segment, usually the right one.
    pub fn new<'s>(input: &mut Input<'_>, state: &'s mut State) -> Forge<'s> {
        let odd = input.byte();
        let mut header = SegmentHeader {
            shared: false,
            compatible: 0,
            log_id: LOG_ID,
            sequence: Sequence::new(state.sequence).unwrap_or(Sequence::FIRST),
            capacity: 64 << 10,
            salt: (state.sequence as u32).wrapping_add(100),
            created_ms: 5,
        };
        match odd {
            240 => header.sequence = Sequence::new(input.number()).unwrap_or(Sequence::FIRST),
            241 => header.log_id.0[0] ^= input.byte(),
            242 => header.salt = input.number() as u32,
            243 => header.capacity = 4096 * input.number().clamp(16, 8 << 20),
            244 => header.compatible = input.number() as u32,
            200..=220 => header.capacity += 4096 * u64::from(odd - 199),
            _ => {}
        }
        Forge {
            state,
            header,
            file: header.encode().to_vec(),
            headers: Vec::new(),
            starts: Vec::new(),
            records: 0,
            first_lsn: None,
            stream: 0,
            index: Vec::new(),
        }
    }

    /// Writes frames until the input says that it is enough, then gives the file a size.
    pub fn write(mut self, input: &mut Input<'_>) -> Vec<u8> {
        if !input.one_in(32) {
            self.own(KIND_OPEN, input);
        }
        for _ in 0..FRAMES_MAX {
            if input.is_empty() {
                break;
            }
            match input.below(20) {
                0..=4 => self.batch(input),
                5 => self.record(input, 0),
                6 => self.own(KIND_TRIM, input),
                7 => self.own(KIND_OPEN, input),
                8 => self.own(KIND_CLOSE, input),
                9 | 10 => {
                    self.own(KIND_SEAL, input);
                    break;
                }
                11 => self.file.extend_from_slice(input.some()),
                12 => self.file.resize(self.file.len() + 8 * input.below(80), 0),
                13 => {
                    let kind = input.pick(&[0xC000, 0xFFFF, 0x8005, 0x8000, 0xBFFF]);
                    self.frame(kind, 0, input.some().to_vec(), input);
                }
                14 => self.file.resize(self.file.len().next_multiple_of(8), 0),
                _ => break,
            }
        }
        self.finish(input)
    }

    fn finish(mut self, input: &mut Input<'_>) -> Vec<u8> {
        self.state.sequence = self.state.sequence.saturating_add(1);
        let capacity = self.header.capacity.min(1 << 20) as usize;
        match input.byte() {
            // A file as it is while it is in use.
            0..=199 => self.file.resize(capacity.max(self.file.len()), 0),
            200..=219 => {}
            220..=239 => {
                let to = usize::from(input.word()) % (self.file.len() + 1);
                self.file.truncate(to);
            }
            240..=249 => self.file.resize(capacity + 8 * input.below(64), 0),
            _ => {
                // Junk at the end of a whole file.
                self.file.resize(capacity.max(self.file.len()), 0);
                let at = usize::from(input.word()) % self.file.len();
                let junk = input.some();
                let end = (at + junk.len()).min(self.file.len());
                self.file[at..end].copy_from_slice(&junk[..end - at]);
            }
        }
        self.file
    }

    /// Up to four records that belong together.
    fn batch(&mut self, input: &mut Input<'_>) {
        let count = 1 + input.below(4);
        for index in 0..count {
            let first = if index == 0 { format::FLAG_BATCH_FIRST } else { 0 };
            let goes_on = if index + 1 < count { format::FLAG_BATCH_GOES_ON } else { 0 };
            self.record(input, first | goes_on);
        }
    }

    fn record(&mut self, input: &mut Input<'_>, flags: u8) {
        let shape = input.byte();
        let payload = match shape {
            0..=199 => vec![shape; usize::from(shape % 24)],
            200..=229 => input.some().to_vec(),
            230..=249 => vec![7; usize::from(shape - 229) * 800],
            _ => vec![9; 20_000],
        };
        self.state.last_lsn = self.state.last_lsn.saturating_add(1);
        self.first_lsn = self.first_lsn.or(Some(self.state.last_lsn));
        self.records += 1;
        let kind = if shape % 16 == 15 { input.number() as u16 } else { 0 };
        self.stream = u32::from(shape % 5);
        self.frame(kind, flags, payload, input);
        self.stream = 0;
    }

    fn own(&mut self, kind: u16, input: &mut Input<'_>) {
        let mut body = self.honest(kind);
        match input.byte() {
            200..=209 => body.head = Lsn::new(input.number()),
            210..=214 => body.generation = Some(Generation(input.number())),
            215..=224 => {
                let name = String::from_utf8_lossy(input.take(4)).into_owned();
                body.holds.extend(Lsn::new(input.number()).map(|lsn| Hold { name, lsn }));
            }
            225..=229 => body.previous = previous(input),
            230..=239 => lie_about_the_seal(&mut body, input),
            240..=244 => body.times_ms = Some((input.number(), input.number())),
            245 => body.index = None,
            246..=255 if kind == KIND_SEAL => body.index = Some(self.forged_index(input)),
            _ => {}
        }
        // What an honest writer goes on with.
        self.state.head = body.head.map_or(self.state.head, Lsn::get);
        self.state.generation = body.generation.map_or(self.state.generation, |own| own.0);
        if kind != KIND_CLOSE {
            self.state.holds.clone_from(&body.holds);
        }
        let mut payload = body.encode();
        if input.one_in(64) {
            payload.extend_from_slice(input.some());
        }
        let offset = self.file.len() as u64;
        if kind == KIND_SEAL {
            let sequence = Sequence::new(self.state.sequence).unwrap_or(Sequence::FIRST);
            self.state.previous = body.seal.map(|seal| SealReference {
                sequence,
                offset: offset.next_multiple_of(8),
                digest: seal.digest,
            });
        }
        self.frame(kind, 0, payload, input);
    }

    fn honest(&self, kind: u16) -> OwnBody {
        let mut body =
            OwnBody { generation: Some(Generation(self.state.generation)), ..OwnBody::default() };
        if kind != KIND_CLOSE {
            body.head = Lsn::new(self.state.head);
            body.holds.clone_from(&self.state.holds);
        }
        if kind == KIND_OPEN && self.starts.is_empty() {
            body.previous.clone_from(&self.state.previous);
        }
        if kind == KIND_SEAL {
            body.index = (!self.index.is_empty()).then(|| format::encode_index(&self.index));
            let crc = format::crc32(&self.headers).to_le_bytes().to_vec();
            body.times_ms = Some((1, 2));
            body.seal = Some(SealBody {
                count: self.records,
                lsns: self.first_lsn.and_then(Lsn::new).zip(Lsn::new(self.state.last_lsn)),
                log_id: self.header.log_id,
                salt: self.header.salt,
                digest: Digest { algorithm: format::DIGEST_CRC32, bytes: crc },
            });
        }
        body
    }

    /// Notes a record in the index, as a writer does.
    fn note(&mut self, frame: &FrameHeader, offset: u64) {
        if frame.is_own() {
            return;
        }
        let stride = format::index_stride(self.header.capacity);
        let full = self.index.last().is_none_or(|last| offset - last.offset() >= stride);
        if full && (!self.index.is_empty() || frame.is_batch_first()) {
            let first_lsn = self.first_lsn.unwrap_or(frame.lsn);
            self.index.push(IndexBlock::new(offset, frame.lsn.wrapping_sub(first_lsn) as u32));
        }
        self.index.iter_mut().last().into_iter().for_each(|b| b.add(frame.stream, frame.kind));
    }

    /// Blocks that begin at other frames, or none, or count their LSNs from elsewhere, or deny what
    /// is in them; and bytes that are no index.
    fn forged_index(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut blocks = self.index.clone();
        for _ in 0..1 + input.below(3) {
            let start = self.starts.get(input.below(self.starts.len().max(1)));
            let offset = start.map_or(128, |start| *start as u64);
            let at = input.below(blocks.len().max(1));
            let lie = input.below(8);
            let Some(block) = blocks.get_mut(at) else {
                blocks.push(IndexBlock::new(offset, input.byte().into()));
                continue;
            };
            match lie {
                0 => block.offset_8th = (offset / 8) as u32,
                1 => block.offset_8th = block.offset_8th.wrapping_add(input.number() as u32),
                2 => block.lsn_delta = block.lsn_delta.wrapping_add(1),
                3 => block.lsn_delta = input.number() as u32,
                4 => *block = IndexBlock::new(block.offset(), block.lsn_delta),
                5 => drop(blocks.remove(at)),
                6 => blocks.insert(at, IndexBlock::new(offset, input.byte().into())),
                _ => blocks.push(IndexBlock::new(offset, input.byte().into())),
            }
        }
        let mut bytes = format::encode_index(&blocks);
        match input.below(16) {
            0 => bytes.truncate(input.below(bytes.len() + 1)),
            1 => bytes.extend_from_slice(input.some()),
            2 => {
                let at = input.below(bytes.len());
                bytes[at] ^= 1 << input.below(8);
            }
            _ => {}
        }
        bytes
    }

    /// One frame; one choice in eight is a lie in its header or its body.
    fn frame(&mut self, kind: u16, flags: u8, payload: Vec<u8>, input: &mut Input<'_>) {
        self.file.resize(self.file.len().next_multiple_of(8), 0);
        let offset = self.file.len();
        // Usually all before this group of batches was durable.
        let behind = input.below(self.starts.len().min(8) + 1);
        let start = self.starts.iter().rev().nth(behind.wrapping_sub(1)).copied();
        let durable = if behind == 0 { offset } else { start.unwrap_or(offset) };
        let mut frame = FrameHeader {
            payload_crc: format::crc32(&payload),
            lsn: self.state.last_lsn,
            len: payload.len() as u32,
            durable_lag: ((offset - durable) / 8) as u32,
            stream: self.stream,
            kind,
            flags,
            codec: 0,
        };
        let lie = input.byte();
        match lie {
            224 => frame.lsn = input.number(),
            225 => frame.lsn = frame.lsn.wrapping_add(input.number()),
            226 => frame.lsn = frame.lsn.wrapping_sub(input.number()),
            227 => frame.durable_lag = input.number() as u32,
            228 => frame.len = input.number() as u32,
            229 => frame.flags = input.byte(),
            230 => frame.kind = input.number() as u16,
            231 => frame.payload_crc ^= 1 << input.below(32),
            232 => (frame.stream, frame.codec) = (input.number() as u32, input.byte()),
            _ => {}
        }
        let place = if lie == 233 { input.number().wrapping_mul(8) } else { offset as u64 };
        let mut encoded = frame.encode(self.header.salt, place);
        if lie == 234 {
            encoded[input.below(FRAME_HEADER_LEN)] ^= 1 << input.below(8);
        }
        self.note(&frame, offset as u64);
        self.starts.push(offset);
        self.headers.extend_from_slice(&encoded);
        self.file.extend_from_slice(&encoded);
        self.file.extend_from_slice(&payload);
        let end = self.file.len().next_multiple_of(8);
        self.file.resize(end, u8::from(lie == 235));
        if lie == 236 {
            let at = SEGMENT_HEADER_LEN + usize::from(input.word()) % (end - SEGMENT_HEADER_LEN);
            self.file[at] ^= 1 << input.below(8);
        }
        if lie == 224 {
            self.state.last_lsn = frame.lsn;
        }
    }
}

fn previous(input: &mut Input<'_>) -> Option<SealReference> {
    Some(SealReference {
        sequence: Sequence::new(input.number())?,
        offset: input.number().wrapping_mul(8),
        digest: Digest { algorithm: 1 + input.below(2) as u8, bytes: vec![input.byte(); 4] },
    })
}

fn lie_about_the_seal(body: &mut OwnBody, input: &mut Input<'_>) {
    let Some(seal) = &mut body.seal else { return };
    match input.below(5) {
        0 => seal.count = input.number(),
        1 => seal.lsns = Lsn::new(input.number()).zip(Lsn::new(input.number())),
        2 => seal.log_id.0[3] ^= 1,
        3 => seal.salt ^= 1,
        _ => {
            seal.digest.algorithm = 1 + input.below(3) as u8;
            seal.digest.bytes = input.take(4).to_vec();
            seal.digest.bytes.resize(4, 0);
        }
    }
}
