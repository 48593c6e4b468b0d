//! Numbered storage, and doubly linked lists through it: adding, finding and removing cost the same however many there are.

use crate::sync::prefetch_write;

/// Bytes of a line of a cache.
const LINE: usize = 64;
/// No item.
pub(super) const NONE: u32 = u32::MAX;

/// Items by number. Numbers of removed items are given out again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Entry<T>>,
    free: u32,
    len: usize,
}

#[derive(Debug)]
enum Entry<T> {
    Vacant(u32),
    Taken(T),
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { items: Vec::new(), free: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The number that the next insert gives.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        self.len += 1;
        if let Some(entry) = self.items.get_mut(self.free as usize) {
            let number = self.free;
            if let Entry::Vacant(next) = *entry {
                self.free = next;
                *entry = Entry::Taken(item);
                return number;
            }
        }
        let number = self.items.len() as u32;
        self.items.push(Entry::Taken(item));
        number
    }

    /// Asks for the lines of an item that will be changed soon: a hint, whatever the number.
    #[inline]
    pub(super) fn ask_ahead(&self, number: u32) {
        if let Some(entry) = self.items.get(number as usize) {
            prefetch_write::<0, _>(entry);
            if size_of::<Entry<T>>() > LINE {
                prefetch_write::<LINE, _>(entry);
            }
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        match self.items.get(number as usize) {
            Some(Entry::Taken(item)) => Some(item),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        match self.items.get_mut(number as usize) {
            Some(Entry::Taken(item)) => Some(item),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let entry = self.items.get_mut(number as usize)?;
        if matches!(entry, Entry::Vacant(_)) {
            return None;
        }
        self.len -= 1;
        match core::mem::replace(entry, Entry::Vacant(self.free)) {
            Entry::Taken(item) => {
                self.free = number;
                Some(item)
            }
            Entry::Vacant(_) => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.items.iter().enumerate().filter_map(|(i, e)| match e {
            Entry::Taken(item) => Some((i as u32, item)),
            Entry::Vacant(_) => None,
        })
    }
}

/// An item's place in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) next: u32,
    pub(super) prev: u32,
}

impl Links {
    pub(super) const ALONE: Self = Self { next: NONE, prev: NONE };
}

/// Items that have more than one pair of links say by `N` which one a list goes through.
pub(super) trait Linked<const N: usize> {
    fn links(&mut self) -> &mut Links;
    fn next(&self) -> u32;
}

/// A list through the items of a slab, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const N: usize> {
    pub(super) head: u32,
    tail: u32,
    pub(super) len: u32,
}

impl<const N: usize> Default for List<N> {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }
}

impl<const N: usize> List<N> {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push<T: Linked<N>>(&mut self, slab: &mut Slab<T>, number: u32) {
        let Some(item) = slab.get_mut(number) else { return };
        *item.links() = Links { next: NONE, prev: self.tail };
        match slab.get_mut(self.tail) {
            Some(tail) => tail.links().next = number,
            None => self.head = number,
        }
        self.tail = number;
        self.len += 1;
    }

    /// Takes out an item that is in this list.
    pub(super) fn remove<T: Linked<N>>(&mut self, slab: &mut Slab<T>, number: u32) {
        let Some(item) = slab.get_mut(number) else { return };
        let links = core::mem::replace(item.links(), Links::ALONE);
        match slab.get_mut(links.prev) {
            Some(prev) => prev.links().next = links.next,
            None => self.head = links.next,
        }
        match slab.get_mut(links.next) {
            Some(next) => next.links().prev = links.prev,
            None => self.tail = links.prev,
        }
        self.len = self.len.saturating_sub(1);
    }

    pub(super) fn pop<T: Linked<N>>(&mut self, slab: &mut Slab<T>) -> Option<u32> {
        if self.head == NONE {
            return None;
        }
        let number = self.head;
        self.remove(slab, number);
        Some(number)
    }

    /// The members' numbers; bounded by the slab's length whatever the links say.
    pub(super) fn iter<'a, T: Linked<N>>(&self, slab: &'a Slab<T>) -> impl Iterator<Item = u32> + 'a {
        let mut at = self.head;
        (0..self.len).map_while(move |_| {
            let item = slab.get(at)?;
            Some(core::mem::replace(&mut at, item.next()))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    struct Item(Links);
    impl Linked<0> for Item {
        fn links(&mut self) -> &mut Links {
            &mut self.0
        }
        fn next(&self) -> u32 {
            self.0.next
        }
    }

    #[test]
    fn a_list_keeps_its_order_whatever_is_taken_out() {
        let mut slab = Slab::new();
        let mut list = List::<0>::default();
        let n: Vec<u32> = (0..5).map(|_| slab.insert(Item(Links::ALONE))).collect();
        for &i in &n {
            list.push(&mut slab, i);
        }
        list.remove(&mut slab, n[2]);
        list.remove(&mut slab, n[0]);
        list.remove(&mut slab, n[4]);
        assert_eq!(list.iter(&slab).collect::<Vec<_>>(), [n[1], n[3]]);
        list.push(&mut slab, n[0]);
        assert_eq!(
            [list.pop(&mut slab), list.pop(&mut slab), list.pop(&mut slab)],
            [Some(n[1]), Some(n[3]), Some(n[0])]
        );
        assert!(list.pop(&mut slab).is_none() && list.is_empty());
    }

    #[test]
    fn numbers_are_given_out_again_and_removed_ones_are_gone() {
        let mut slab = Slab::new();
        let a = slab.insert(1);
        let b = slab.insert(2);
        assert_eq!((slab.remove(a), slab.remove(a), slab.len()), (Some(1), None, 1));
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&2)));
        assert_eq!(slab.insert(3), a);
        assert_eq!(slab.iter().map(|(_, v)| *v).sum::<i32>(), 5);
    }
}
