//! What a handler answers: the fields of its JSON object, checked and made into an [`Answer`] or a [`Failure`].

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    dependency::{Dependencies, Input, OnDependencyFailure},
    duration::DURATION_MAX,
    gather::Gather,
    id::{JSON, check_content_type, check_id},
    item::Data,
    nested::{Nested, PARTITIONS_MAX, Then},
};

/// What a delivery came to: the handler's answer, or why there is none.
pub type Verdict = Result<Answer, Failure>;

/// The item was accepted. The default is: it is done and its data stays as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// Where the item goes next; `None` with [`Next::Again`] means the gate where it is.
    pub next: Next,
    /// The item's new data; `None` leaves it unchanged.
    pub data: Option<Data>,
    /// Items to add in the same transaction.
    pub items: Vec<Child>,
    /// Partitions to make in the same transaction. The item waits where it is until they have closed,
    /// and `next` does not count.
    pub partitions: Vec<Nested>,
    /// What becomes of it then.
    pub then: Then,
}

impl Answer {
    /// All data that it brings.
    pub fn data_mut(&mut self) -> impl Iterator<Item = &mut Data> {
        let nested = self.partitions.iter_mut().flat_map(|nested| &mut nested.items);
        let children = self.items.iter_mut().chain(nested);
        self.data.iter_mut().chain(children.map(|child| &mut child.data))
    }
}

/// What becomes of an accepted item.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Next {
    /// It is through.
    #[default]
    Done,
    /// It is delivered again, at `gate` (or where it is), not before `after` has passed.
    Again {
        /// The gate it moves to, ahead or back; `None`: it stays.
        gate: Option<i32>,
        /// The delay before the next delivery; more than [`DURATION_MAX`] is taken as that much.
        after: Option<Duration>,
    },
    /// Its work goes on elsewhere: it waits where it is for a callback ([`crate::callback`]). Data, items and partitions
    /// come with that, and not before.
    Callback {
        /// Without one in this time, of which more than [`DURATION_MAX`] is taken as that much, the attempt has failed.
        within: Duration,
    },
}

/// An item that an answer adds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Child {
    /// Its id; `None` derives one from partition, parent, pass and index.
    pub id: Option<String>,
    /// Its gate; `None` means its parent's gate, or 0 in another partition.
    pub gate: Option<i32>,
    /// Higher is sooner.
    pub priority: i32,
    /// The partition it goes into, made if missing; `None` means its parent's.
    pub partition: Option<String>,
    /// Its data.
    pub data: Data,
    /// What it waits for in its partition.
    pub dependencies: Dependencies,
    /// What it asks for.
    pub gather: Option<Gather>,
}

/// The attempt failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What people read in `error_messages`.
    pub message: String,
    /// The item fails at once, whatever retries are left.
    pub no_retry: bool,
    /// The delay before the next attempt; `None` means backoff, and more than [`DURATION_MAX`] is taken as that much.
    pub retry_after: Option<Duration>,
    /// False when the delivery surely never reached the handler or the handler asked for time (429 or 503 with
    /// Retry-After): the item is delayed and keeps its retries.
    pub counted: bool,
}

impl Failure {
    /// A failed attempt that counts and is retried with backoff.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), no_retry: false, retry_after: None, counted: true }
    }

    /// A failed attempt after which the item fails at once.
    pub fn final_(message: impl Into<String>) -> Self {
        Self { no_retry: true, ..Self::new(message) }
    }

    /// A delivery that does not count as an attempt, to be repeated after `delay`.
    pub fn delayed(message: impl Into<String>, delay: Option<Duration>) -> Self {
        Self { counted: false, retry_after: delay, ..Self::new(message) }
    }
}

impl<T: Into<String>> From<T> for Failure {
    fn from(message: T) -> Self {
        Self::new(message)
    }
}

impl Answer {
    /// The item is through; its data stays as it is.
    pub fn done() -> Self {
        Self::default()
    }

    /// The item goes to `gate` next (≥ 0; ahead, back, or the same one).
    pub fn to_gate(gate: i32) -> Self {
        Self { next: Next::Again { gate: Some(gate), after: None }, ..Self::default() }
    }

    /// The item stays at its gate and is delivered again after `delay`.
    pub fn again_after(delay: Duration) -> Self {
        Self { next: Next::Again { gate: None, after: Some(delay) }, ..Self::default() }
    }

    /// The answer comes later, by a callback, within this time.
    pub fn by_callback(within: Duration) -> Self {
        Self { next: Next::Callback { within }, ..Self::default() }
    }

    /// With new data for the item.
    pub fn with_data(mut self, data: Data) -> Self {
        self.data = Some(data);
        self
    }

    /// With an item to add.
    pub fn with_item(mut self, child: Child) -> Self {
        self.items.push(child);
        self
    }

    /// With a partition to make and to wait for.
    pub fn with_partition(mut self, partition: Nested) -> Self {
        self.partitions.push(partition);
        self
    }
}

/// The most items that one answer may add: they share a transaction with its outcome.
pub const ITEMS_MAX: usize = 10_000;

/// What a JSON answer has to look like, for messages.
const EXPECTED: &str = "expected an empty body or a JSON object with at least one of gate, done, data, error, \
                        retry_after, items, partitions";

/// Reads a 2xx body without `Gatefeed-*` headers. An answer that does not keep the contract is a failed
/// attempt: a silent success would lose work.
pub fn parse(body: &[u8]) -> Verdict {
    read(body).unwrap_or_else(|problem| Err(Failure::new(problem)))
}

/// As [`parse`], with what does not keep the contract apart from what says that the attempt has failed: who asks back can
/// be told.
pub fn read(body: &[u8]) -> Result<Verdict, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Ok(Answer::done()));
    }
    let fields = Fields::read(body)?;
    if fields.0.is_empty() {
        return Ok(Ok(Answer::done()));
    }
    if !fields.has_known() {
        return Err(format!("the answer is an object without a known field; {EXPECTED}"));
    }
    if let Some(failure) = fields.failure()? {
        return Ok(Err(failure));
    }
    let kept = |problem| format!("the answer does not keep the contract: {problem}");
    fields.answer().map(Ok).map_err(kept)
}

/// The headers that make a body the item's new data, each as its text ([`header_text`]).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Steering<'a> {
    /// `Gatefeed-Done`.
    pub done: Option<&'a str>,
    /// `Gatefeed-Gate`.
    pub gate: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
}

/// The content type of new data that came without one.
const BYTES: &str = "application/octet-stream";

/// Bytes in, bytes out: headers steer, the body is the new data. An empty body leaves the data as it is,
/// since a bare 204 that only meant to steer must not wipe it.
pub fn steered(steering: &Steering<'_>, body: Bytes) -> Result<Answer, String> {
    let gate = steering.gate.map(header_gate).transpose()?;
    let done = steering.done.map(|value| header_flag("gatefeed-done", value)).transpose()?;
    let next = match done.unwrap_or(gate.is_none()) {
        true => Next::Done,
        false => Next::Again { gate, after: None },
    };
    let content_type = steering.content_type.unwrap_or(BYTES);
    let data = match body.is_empty() {
        true => None,
        false => {
            check_content_type(content_type).map_err(|error| format!("the answer's {error}"))?;
            Some(Data { bytes: body, content_type: content_type.to_owned() })
        }
    };
    Ok(Answer { next, data, ..Answer::default() })
}

/// The text of a header from all of its values; one that is there twice or is no text says nothing that can be relied on.
pub fn header_text<'a>(
    name: &str,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<&'a str>, String> {
    let mut values = values.into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("the answer's header {name} is there more than once"));
    }
    let text = std::str::from_utf8(value);
    text.map(|text| Some(text.trim())).map_err(|_| format!("the answer's header {name} is not UTF-8"))
}

/// True or false, as headers say it.
pub fn header_flag(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("the answer's header {name} is {value:?}, expected true or false")),
    }
}

fn header_gate(value: &str) -> Result<i32, String> {
    value.parse().ok().filter(|gate| *gate >= 0).ok_or_else(|| {
        format!("the answer's header gatefeed-gate is {value:?}, expected an integer from 0 to 2147483647")
    })
}

/// Reads the body of a non-2xx answer for `error` and `retry_after`; whatever else it is counts as no details.
pub fn parse_error(body: &[u8]) -> Option<Failure> {
    let fields = Fields::read(body).ok()?;
    let retry_after = fields.seconds("retry_after").ok().flatten();
    let failure = fields.failure().ok().flatten();
    match (failure, retry_after) {
        (Some(failure), _) => Some(failure),
        (None, Some(after)) => Some(Failure { retry_after: Some(after), ..Failure::new("") }),
        (None, None) => None,
    }
}

/// Seconds, checked and bounded by [`DURATION_MAX`].
pub fn delay_from_secs(secs: f64) -> Option<Duration> {
    (secs >= 0.0).then(|| Duration::from_secs_f64(secs.min(DURATION_MAX.as_secs_f64())))
}

/// The fields of one JSON object, their values untouched so that numbers keep their digits.
struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    const KNOWN: [&'static str; 9] =
        ["gate", "done", "complete", "data", "response", "error", "retry_after", "items", "partitions"];

    fn read(body: &'a [u8]) -> Result<Self, String> {
        let text =
            std::str::from_utf8(body).map_err(|_| format!("the answer is not UTF-8 text; {EXPECTED}"))?;
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| format!("the answer is not JSON ({error}); {EXPECTED}"))?;
        serde_json::from_str(raw.get()).map(Self).map_err(|_| {
            let kind = kind_of(raw);
            format!("the answer is {kind}, not an object; {EXPECTED}")
        })
    }

    fn has_known(&self) -> bool {
        Self::KNOWN.iter().any(|name| self.0.contains_key(*name))
    }

    /// The value of a field; JSON's null is the same as leaving it out.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|value| value.get() != "null")
    }

    fn typed<T: serde::Deserialize<'a>>(&self, name: &str, expected: &str) -> Result<Option<T>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        serde_json::from_str(value.get())
            .map(Some)
            .map_err(|_| format!("{name} is {}, expected {expected}", shortened(value.get())))
    }

    fn gate(&self) -> Result<Option<i32>, String> {
        let gate: Option<i32> = self.typed("gate", "an integer from 0 to 2147483647")?;
        match gate {
            Some(gate) if gate < 0 => {
                Err(format!("gate is {gate}, expected an integer from 0 to 2147483647"))
            }
            gate => Ok(gate),
        }
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(secs) = self.typed::<f64>(name, "a number of seconds")? else { return Ok(None) };
        delay_from_secs(secs)
            .map(Some)
            .ok_or_else(|| format!("{name} is {secs}, expected a number of seconds ≥ 0"))
    }

    /// `error` in whatever shape it came: an answer that says "error" never counts as a success.
    fn failure(&self) -> Result<Option<Failure>, String> {
        let Some(error) = self.get("error") else { return Ok(None) };
        let retry_after = self.seconds("retry_after").unwrap_or(None);
        let mut failure = match serde_json::from_str::<serde_json::Value>(error.get()) {
            Ok(serde_json::Value::String(message)) => Failure::new(message),
            Ok(serde_json::Value::Object(fields)) => {
                let message = fields.get("message").and_then(|m| m.as_str()).unwrap_or_default();
                let no_retry = fields.get("no_retry").and_then(serde_json::Value::as_bool).unwrap_or(false);
                Failure { no_retry, ..Failure::new(message) }
            }
            _ => Failure::new(format!("error: {}", shortened(error.get()))),
        };
        if failure.message.is_empty() {
            failure.message = "the handler reported an error without a message".to_owned();
        }
        failure.retry_after = retry_after;
        Ok(Some(failure))
    }

    /// Two names for one field; both only if they agree.
    fn either(&self, name: &'static str, alias: &'static str) -> Result<&'static str, String> {
        match (self.0.get(name), self.0.get(alias)) {
            (Some(one), Some(other)) if one.get() != other.get() => {
                Err(format!("{name} and its alias {alias} are both present and differ"))
            }
            (None, Some(_)) => Ok(alias),
            _ => Ok(name),
        }
    }

    fn answer(&self) -> Result<Answer, String> {
        let gate = self.gate()?;
        let after = self.seconds("retry_after")?;
        let done = self.typed::<bool>(self.either("done", "complete")?, "true or false")?;
        let next = match done.unwrap_or(gate.is_none() && after.is_none()) {
            true => Next::Done,
            false => Next::Again { gate, after },
        };
        // Here null is a value like any other, so the plain map is asked.
        let data = self.0.get(self.either("data", "response")?).map(|raw| Data::json(raw.get().to_owned()));
        let items = self.items()?;
        let (partitions, then) = self.partitions(items.len())?;
        let completes = then == Then::Complete;
        if !partitions.is_empty()
            && (gate.is_some() || after.is_some() || done.is_some_and(|done| done != completes))
        {
            return Err("with partitions the item waits for them where it is, and \"then\" says what becomes of it: leave \
                        out gate, retry_after and done"
                .into());
        }
        Ok(Answer { next, data, items, partitions, then })
    }

    fn items(&self) -> Result<Vec<Child>, String> {
        self.entries("items", ITEMS_MAX, Fields::child)
    }

    /// What an array has, each read by `read`; none without the array.
    fn entries<T>(
        &self,
        name: &str,
        max: usize,
        read: impl Fn(&Fields<'a>) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let entries: Vec<HashMap<String, &RawValue>> =
            self.typed(name, "an array of objects")?.unwrap_or_default();
        if entries.len() > max {
            return Err(format!("{name} has {} entries, expected at most {max}", entries.len()));
        }
        let read =
            |(index, fields)| read(&Fields(fields)).map_err(|problem| format!("{name}[{index}]: {problem}"));
        entries.into_iter().enumerate().map(read).collect()
    }

    /// The partitions to nest, beside so many items, and what comes then.
    fn partitions(&self, items: usize) -> Result<(Vec<Nested>, Then), String> {
        let read = self.entries("partitions", PARTITIONS_MAX, Fields::nested)?;
        let (partitions, thens): (Vec<Nested>, Vec<Then>) = read.into_iter().unzip();
        let items: usize = items + partitions.iter().map(|nested| nested.items.len()).sum::<usize>();
        if items > ITEMS_MAX {
            return Err(format!("there are {items} items in all, expected at most {ITEMS_MAX}"));
        }
        let then = thens.first().copied().unwrap_or_default();
        match thens.iter().all(|other| *other == then) {
            true => Ok((partitions, then)),
            false => Err(
                "partitions: \"then\" differs; the item waits for all of them, so that it must be the same"
                    .into(),
            ),
        }
    }

    fn nested(&self) -> Result<(Nested, Then), String> {
        let id = self.name("id")?;
        let feed = self.name("feed")?;
        let then: Option<&str> = self.typed("then", "\"deliver\" or \"complete\"")?;
        let then = then.map(str::parse::<Then>).transpose().map_err(|e| format!("then: {e}"))?;
        let items = self.items()?;
        if items.is_empty() {
            return Err("items is empty, and an empty partition never closes".into());
        }
        if let Some(index) = items.iter().position(|item| item.partition.is_some()) {
            return Err(format!("items[{index}]: an item of a nested partition names no other"));
        }
        let takes_parents =
            |item: &Child| item.dependencies.input == Input::Parent && item.dependencies.is_empty();
        if let Some(index) = items.iter().position(takes_parents) {
            return Err(format!(
                "items[{index}]: input is \"parent\", but the item is for a partition of its own: give it data"
            ));
        }
        Ok((Nested { id, feed, items }, then.unwrap_or_default()))
    }

    fn name(&self, name: &'static str) -> Result<Option<String>, String> {
        let text: Option<String> = self.typed(name, "a string")?;
        if let Some(text) = &text {
            check_id(name, text).map_err(|e| e.to_string())?;
        }
        Ok(text)
    }

    fn child(&self) -> Result<Child, String> {
        let id = self.name("id")?;
        let partition = self.name("partition")?;
        let priority = self.typed("priority", "an integer")?.unwrap_or(0);
        let gate = self.gate()?;
        let dependencies = self.dependencies(id.as_deref())?;
        let data = self.child_data(dependencies.input)?;
        if partition.is_some() && dependencies.input == Input::Parent && dependencies.is_empty() {
            return Err(
                "input is \"parent\", but the item is for a partition of its own: give it data".into()
            );
        }
        Ok(Child { id, gate, priority, partition, data, dependencies, gather: self.gather()? })
    }

    fn gather(&self) -> Result<Option<Gather>, String> {
        let parse = |raw: &RawValue| Gather::parse(raw.get()).map_err(|error| format!("gather: {error}"));
        self.get("gather").map(parse).transpose()
    }

    fn dependencies(&self, id: Option<&str>) -> Result<Dependencies, String> {
        let policy: Option<&str> = self.typed("on_dependency_failure", "fail, skip or run")?;
        let policy = policy.map(str::parse::<OnDependencyFailure>).transpose();
        let input: Option<&str> = self.typed("input", "\"parent\"")?;
        let input = input.map(str::parse::<Input>).transpose();
        let dependencies = Dependencies {
            on: self.typed("depends_on", "an array of ids")?.unwrap_or_default(),
            on_failure: policy.map_err(|e| format!("on_dependency_failure: {e}"))?.unwrap_or_default(),
            input: input.map_err(|e| format!("input: {e}"))?.unwrap_or_default(),
        };
        dependencies.check(id).map(|()| dependencies)
    }

    /// JSON as it stands; with another content type, the text of a string. What takes its parent's needs none.
    fn child_data(&self, input: Input) -> Result<Data, String> {
        let raw = match self.0.get("data") {
            Some(raw) => raw,
            None if input == Input::Parent => return Ok(Data::json("null")),
            None => return Err("data is missing".into()),
        };
        let content_type: Option<String> = self.typed("content_type", "a string")?;
        let content_type = content_type.unwrap_or_else(|| JSON.to_owned());
        check_content_type(&content_type).map_err(|e| e.to_string())?;
        if is_json(&content_type) {
            return Ok(Data { bytes: raw.get().to_owned().into(), content_type });
        }
        let text: String = serde_json::from_str(raw.get())
            .map_err(|_| format!("data must be a string where content_type is {content_type}"))?;
        Ok(Data { bytes: text.into(), content_type })
    }
}

/// Whether a content type is JSON (`application/json`, `application/problem+json; charset=utf-8`).
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == JSON || essence.ends_with("+json")
}

fn kind_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'{') => "a malformed object",
        _ => "a number",
    }
}

fn shortened(text: &str) -> String {
    let head: String = text.chars().take(60).collect();
    if head.len() < text.len() { format!("{head}…") } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn again(gate: Option<i32>, after: Option<u64>) -> Next {
        Next::Again { gate, after: after.map(Duration::from_secs) }
    }

    fn failed(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn partitions_are_waited_for() {
        let body = br#"{"data":{"n":1},"partitions":[
            {"id":"q","feed":"f","items":[{"id":"a","gate":2,"data":1},{"data":2}]},
            {"items":[{"data":3}],"then":"deliver"}]}"#;
        let answer = parse(body).unwrap();
        assert_eq!((answer.then, answer.partitions.len()), (Then::Deliver, 2));
        let first = &answer.partitions[0];
        assert_eq!(
            (first.id.as_deref(), first.feed.as_deref(), first.items.len()),
            (Some("q"), Some("f"), 2)
        );
        let complete = br#"{"done":true,"partitions":[{"items":[{"data":3}],"then":"complete"}]}"#;
        assert_eq!(parse(complete).unwrap().then, Then::Complete);
        assert_eq!(parse(br#"{"partitions":[]}"#).unwrap(), Answer::done());
    }

    #[test]
    fn partitions_that_could_not_be_are_refused() {
        let refused = |partitions: &str, expected: &str| {
            let message = failed(&format!("{{\"partitions\":{partitions}}}"));
            assert!(message.contains(expected), "{partitions}: {message}");
        };
        refused("1", "expected an array of objects");
        refused(r#"[{"items":[]}]"#, "partitions[0]: items is empty, and an empty partition never closes");
        refused("[{}]", "partitions[0]: items is empty");
        refused(r#"[{"items":[{}]}]"#, "partitions[0]: items[0]: data is missing");
        refused(r#"[{"id":"","items":[{"data":1}]}]"#, "partitions[0]: id is empty");
        refused(r#"[{"items":[{"data":1}],"then":"sleep"}]"#, "\"sleep\" is neither");
        refused(r#"[{"items":[{"data":1,"partition":"x"}]}]"#, "names no other");
        refused(r#"[{"items":[{"input":"parent"}]}]"#, "input is \"parent\"");
        let one = r#"{"items":[{"data":1}]}"#;
        refused(&format!(r#"[{one},{{"items":[{{"data":1}}],"then":"complete"}}]"#), "differs");
        refused(&format!("[{one}],\"retry_after\":1"), "leave out");
        refused(&format!("[{one}],\"gate\":1"), "leave out");
        refused(&format!("[{one}],\"done\":true"), "leave out");
        refused(&format!("[{}]", vec![one; 1_001].join(",")), "1001 entries, expected at most 1000");
        let many = format!(r#"{{"items":[{}]}}"#, vec![r#"{"data":1}"#; 6_000].join(","));
        refused(&format!("[{many},{many}]"), "12000 items in all");
    }

    #[test]
    fn nothing_means_done_and_unchanged() {
        for body in ["", " \n", "{}", r#"{"error":null}"#, r#"{"gate":null}"#] {
            assert_eq!(parse(body.as_bytes()), Ok(Answer::done()), "{body}");
        }
    }

    #[test]
    fn done_defaults_to_false_with_a_gate_or_a_delay() {
        let next = |body: &str| parse(body.as_bytes()).unwrap().next;
        assert_eq!(next(r#"{"gate":3}"#), again(Some(3), None));
        assert_eq!(next(r#"{"retry_after":2}"#), again(None, Some(2)));
        assert_eq!(next(r#"{"gate":0,"retry_after":2}"#), again(Some(0), Some(2)));
        assert_eq!(next(r#"{"data":1}"#), Next::Done);
        assert_eq!(next(r#"{"gate":3,"done":true}"#), Next::Done);
        assert_eq!(next(r#"{"done":false}"#), again(None, None));
        assert_eq!(next(r#"{"complete":false,"gate":1}"#), again(Some(1), None));
    }

    #[test]
    fn data_keeps_its_digits_and_null_is_a_value() {
        let data = |body: &str| parse(body.as_bytes()).unwrap().data.map(|d| d.bytes);
        assert_eq!(
            data(r#"{"data":{"n":123456789012345678901234567890.10}}"#).unwrap(),
            r#"{"n":123456789012345678901234567890.10}"#
        );
        assert_eq!(data(r#"{"response":[1, 2]}"#).unwrap(), "[1, 2]");
        assert_eq!(data(r#"{"data":null}"#).unwrap(), "null");
        assert_eq!(data(r#"{"done":true}"#), None);
    }

    #[test]
    fn items_say_what_they_gather() {
        let gather = |json: &str| {
            let verdict = parse(format!(r#"{{"items":[{{"data":1,"gather":{json}}}]}}"#).as_bytes());
            verdict.map(|answer| answer.items[0].gather).map_err(|failure| failure.message)
        };
        let expected = Gather { gate: 2, status: crate::gather::Ended::Failed };
        assert_eq!(gather(r#"{"gate":2,"status":"failed"}"#), Ok(Some(expected)));
        assert_eq!(gather("null"), Ok(None));
        assert!(gather("2").unwrap_err().contains("items[0]: gather: expected {\"gate\": 0"));
    }

    #[test]
    fn items_say_what_they_depend_on() {
        let item = |fields: &str| {
            let verdict = parse(format!(r#"{{"items":[{{{fields}}}]}}"#).as_bytes());
            verdict.map(|answer| answer.items[0].clone()).map_err(|failure| failure.message)
        };
        let child = item(r#""data":1,"depends_on":["a","b"],"on_dependency_failure":"run""#).unwrap();
        let on_failure = OnDependencyFailure::Run;
        assert_eq!(child.dependencies, Dependencies { on_failure, ..Dependencies::on(["a", "b"]) });
        let child = item(r#""input":"parent""#).unwrap();
        assert_eq!((child.dependencies.input, child.data), (Input::Parent, Data::json("null")));
        for (fields, expected) in [
            (r#""data":1,"depends_on":["a","a"]"#, "items[0]: depends_on names \"a\" twice"),
            (r#""data":1,"id":"a","depends_on":["a"]"#, "itself: a → a"),
            (r#""data":1,"depends_on":"a""#, "expected an array of ids"),
            (r#""data":1,"on_dependency_failure":"stop""#, "is not fail, skip or run"),
            (r#""data":1,"input":"x""#, "is not parent"),
            (r#""input":"parent","depends_on":["a","b"]"#, "names 2 items"),
            (r#""input":"parent","partition":"q""#, "a partition of its own"),
        ] {
            let error = item(fields).unwrap_err();
            assert!(error.contains(expected), "{fields}: {error}");
        }
    }

    #[test]
    fn an_error_is_a_failure_whatever_stands_beside_it() {
        let failure =
            parse(br#"{"error":{"message":"no","no_retry":true},"done":true,"gate":"x","retry_after":7}"#);
        let expected = Failure { retry_after: Some(Duration::from_secs(7)), ..Failure::final_("no") };
        assert_eq!(failure, Err(expected));
        assert_eq!(failed(r#"{"error":"plain"}"#), "plain");
        assert!(failed(r#"{"error":{}}"#).contains("without a message"));
        assert_eq!(failed(r#"{"error":false}"#), "error: false");
    }

    #[test]
    fn what_does_not_keep_the_contract_fails_and_says_why() {
        for (body, expected) in [
            ("<html>502</html>", "not JSON"),
            ("[]", "is an array"),
            ("3", "is a number"),
            ("null", "is null"),
            (r#"{"status":"ok"}"#, "without a known field"),
            (r#"{"gate":-1}"#, "gate is -1"),
            (r#"{"gate":1.5}"#, "gate is 1.5"),
            (r#"{"gate":"1"}"#, "gate is \"1\""),
            (r#"{"gate":3000000000}"#, "gate is 3000000000"),
            (r#"{"done":"yes"}"#, "done is \"yes\""),
            (r#"{"done":true,"complete":false}"#, "differ"),
            (r#"{"retry_after":-1}"#, "retry_after is -1"),
            (r#"{"retry_after":"soon"}"#, "retry_after is"),
            (r#"{"items":{}}"#, "items is {}"),
            (r#"{"items":[{"id":"a"}]}"#, "items[0]: data is missing"),
            (r#"{"items":[{"id":"a\nb","data":1}]}"#, "items[0]: id has the control character"),
            (r#"{"items":[{"data":1,"content_type":"text/plain"}]}"#, "must be a string"),
            (r#"{"items":[{"data":1,"gate":-2}]}"#, "gate is -2"),
        ] {
            let message = failed(body);
            assert!(message.contains(expected), "{body}: {message}");
        }
        assert!(parse(b"{\"data\":\"\xff\"}").unwrap_err().message.contains("not UTF-8"));
    }

    #[test]
    fn children_are_bounded() {
        let body = |count| format!("{{\"items\": [{}]}}", vec![r#"{"data":1}"#; count].join(","));
        assert_eq!(parse(body(ITEMS_MAX).as_bytes()).unwrap().items.len(), ITEMS_MAX);
        assert!(failed(&body(ITEMS_MAX + 1)).contains("items has 10001 entries, expected at most 10000"));
    }

    #[test]
    fn children_take_json_as_it_stands_and_text_of_other_types() {
        let body = r#"{"items":[{"data":{"a":1.0},"id":"x","gate":2,"priority":-1,"partition":"p"},
                                {"data":"h\u0000i","content_type":"text/plain"}]}"#;
        let answer = parse(body.as_bytes()).unwrap();
        assert_eq!(answer.next, Next::Done);
        let first = &answer.items[0];
        assert_eq!((first.id.as_deref(), first.gate, first.priority), (Some("x"), Some(2), -1));
        assert_eq!(first.data, Data::json(r#"{"a":1.0}"#));
        assert_eq!(answer.items[1].data.bytes, "h\0i");
    }

    #[test]
    fn error_bodies_are_read_for_their_details_only() {
        assert_eq!(parse_error(b"<html>"), None);
        assert_eq!(parse_error(br#"{"done":true}"#), None);
        assert_eq!(parse_error(br#"{"retry_after":3}"#).unwrap().retry_after, Some(Duration::from_secs(3)));
        assert!(parse_error(br#"{"error":{"no_retry":true}}"#).unwrap().no_retry);
    }

    #[test]
    fn delays_are_bounded() {
        assert_eq!(delay_from_secs(1e300), Some(DURATION_MAX));
        assert_eq!(delay_from_secs(f64::NAN), None);
        assert_eq!(delay_from_secs(-0.1), None);
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_verdict(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
            let _ = parse_error(&body);
        }

        #[test]
        fn any_json_object_without_a_known_field_fails(key in "[a-z_]{1,12}", value in any::<i32>()) {
            prop_assume!(!Fields::KNOWN.contains(&key.as_str()));
            let body = format!("{{\"{key}\":{value}}}");
            prop_assert!(parse(body.as_bytes()).is_err());
        }
    }
}
