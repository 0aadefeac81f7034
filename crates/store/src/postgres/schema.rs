//! Which schema the tables are in, and statements templated by it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use gatefeed_core::{Result, StoreError};

/// The longest schema name: the notification channels are made of it and have to fit into 63 bytes.
const NAME_BYTES_MAX: usize = 48;

/// Fills `{schema}` and `{channel}` into statements. Each template is filled once.
#[derive(Debug)]
pub(super) struct Sql {
    /// The name as the catalogue has it.
    pub(super) schema: String,
    /// The channel as LISTEN takes it, unquoted.
    pub(super) channel: String,
    /// Where partitions that have ended are told.
    pub(super) ended: String,
    filled: Mutex<HashMap<&'static str, &'static str>>,
}

/// One for each schema that this process has used, of which there are few.
static ALL: Mutex<Option<HashMap<String, Arc<Sql>>>> = Mutex::new(None);

impl Sql {
    /// Of a schema.
    pub(super) fn of(schema: &str) -> Result<Arc<Self>> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        if let Some(sql) = all.get(schema) {
            return Ok(Arc::clone(sql));
        }
        let sql = Arc::new(Self::new(schema)?);
        all.insert(schema.to_owned(), Arc::clone(&sql));
        Ok(sql)
    }

    fn new(schema: &str) -> Result<Self> {
        let fits = !schema.is_empty() && schema.len() <= NAME_BYTES_MAX;
        let first_is_fine = !schema.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        let rest_is_fine = schema.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !(fits && first_is_fine && rest_is_fine) {
            return Err(StoreError::Config(format!(
                "the schema name {schema:?} will not do: expected 1 to {NAME_BYTES_MAX} letters, digits, '_' or '-', \
                 not starting with a digit or '-'"
            )));
        }
        Ok(Self {
            schema: schema.to_owned(),
            channel: format!("gatefeed.{schema}"),
            ended: format!("gatefeed.{schema}.ended"),
            filled: Mutex::default(),
        })
    }

    /// The text for one use.
    pub(super) fn fill(&self, template: &str) -> String {
        template
            .replace("{schema}", &format!("\"{}\"", self.schema))
            .replace("{channel}", &format!("'{}'", self.channel))
    }

    /// The text of a statement of this program. Leaked once a template and schema, of which there are few, so
    /// that prepared statements can be found by it without building it again.
    pub(super) fn get(&self, template: &'static str) -> &'static str {
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        filled.entry(template).or_insert_with(|| Box::leak(self.fill(template).into_boxed_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_quotes_are_refused() {
        for bad in ["", "a\"b", "a'b", "a b", "1a", "-a", "ä", &"x".repeat(49)] {
            assert!(Sql::new(bad).is_err(), "{bad}");
        }
        let sql = Sql::new("Jobs_2-eu").unwrap();
        assert_eq!(sql.get("{schema}.t, {channel}"), "\"Jobs_2-eu\".t, 'gatefeed.Jobs_2-eu'");
    }
}
