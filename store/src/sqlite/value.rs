//! How values stand in columns.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Sqlite, Type};

/// A value that serde writes as one word: an id, a digest, a target, a state. [`sqlx::types::Json`]
/// is for all others.
pub(super) struct Word<T>(pub(super) T);

impl<T> Type<Sqlite> for Word<T> {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }

    fn compatible(info: &SqliteTypeInfo) -> bool {
        <str as Type<Sqlite>>::compatible(info)
    }
}

impl<T: Serialize> Encode<'_, Sqlite> for Word<T> {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        match serde_json::to_value(&self.0)? {
            serde_json::Value::String(word) => Encode::<Sqlite>::encode(word, buffer),
            other => Err(format!("{other} is not one word").into()),
        }
    }
}

impl<T: DeserializeOwned> Decode<'_, Sqlite> for Word<T> {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        let word = <String as Decode<Sqlite>>::decode(value)?;
        Ok(Self(serde_json::from_value(serde_json::Value::String(word))?))
    }
}

/// The values of words.
pub(super) fn plain<T>(words: Vec<Word<T>>) -> Vec<T> {
    words.into_iter().map(|Word(value)| value).collect()
}
