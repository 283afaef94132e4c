//! Hears the spans of some threads: their fields, and which lies within which.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

/// A span that was heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub name: &'static str,
    pub target: &'static str,
    /// The span that was entered when this one began.
    pub parent: Option<usize>,
    pub texts: BTreeMap<&'static str, String>,
    pub numbers: BTreeMap<&'static str, u64>,
}

impl Heard {
    pub fn text(&self, field: &str) -> &str {
        self.texts.get(field).unwrap_or_else(|| panic!("no text {field} in {self:?}"))
    }

    pub fn number(&self, field: &str) -> u64 {
        *self.numbers.get(field).unwrap_or_else(|| panic!("no number {field} in {self:?}"))
    }
}

impl Visit for Heard {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.insert(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.texts.insert(field.name(), format!("{value:?}"));
    }
}

/// Spans of every thread that listens with a clone of it, in the order of their beginnings.
#[derive(Clone, Debug, Default)]
pub struct Listener(Arc<Mutex<Vec<Heard>>>);

thread_local! {
    /// The spans that this thread is in.
    static ENTERED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl Listener {
    pub fn heard(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }
}

fn index(id: &Id) -> usize {
    id.into_u64() as usize - 1
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let mut heard = Heard {
            name: metadata.name(),
            target: metadata.target(),
            parent: ENTERED.with_borrow(|entered| entered.last().copied()),
            ..Heard::default()
        };
        attributes.record(&mut heard);
        let mut all = self.0.lock().unwrap();
        all.push(heard);
        Id::from_u64(all.len() as u64)
    }

    fn record(&self, id: &Id, fields: &Record<'_>) {
        fields.record(&mut self.0.lock().unwrap()[index(id)]);
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(index(id)));
    }

    fn exit(&self, id: &Id) {
        let left = ENTERED.with_borrow_mut(Vec::pop);
        assert_eq!(left, Some(index(id)), "a span that is left was entered last");
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}
}
