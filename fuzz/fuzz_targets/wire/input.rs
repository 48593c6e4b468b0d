//! The bytes of an input, taken from the front; zeros when they are used up.

use prost::Message;
use shmuring::request::RelTag;

pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// A number: small, near a power of two, or anything.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 | 1 => u64::from(self.byte()),
            2 => (1_u64 << self.below(64)).wrapping_add(u64::from(self.byte())).wrapping_sub(128),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    pub fn choose<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// One of a few relation forks.
    pub fn rel(&mut self) -> RelTag {
        let n = self.byte();
        RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384 + u32::from(n >> 2 & 1), fork: n & 3 }
    }

    /// A message as it comes over the wire: the bytes of the input as they are, or those of `usual`, with a byte of them
    /// changed now and then. `None`: they are none.
    pub fn message<M: Message + Default + Clone + PartialEq>(
        &mut self,
        usual: impl FnOnce(&mut Self) -> M,
    ) -> Option<M> {
        let bytes = if self.one_in(4) {
            self.rest().to_vec()
        } else {
            let mut bytes = usual(self).encode_to_vec();
            if self.one_in(4) && !bytes.is_empty() {
                let at = self.number() as usize % bytes.len();
                bytes[at] ^= self.byte();
            }
            bytes
        };
        let message = M::decode(bytes.as_slice()).ok()?;
        // What was understood comes back as it went.
        assert!(M::decode(message.encode_to_vec().as_slice()).as_ref() == Ok(&message));
        Some(message)
    }
}
