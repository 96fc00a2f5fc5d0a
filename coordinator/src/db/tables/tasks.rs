//! What tasks are like.

use aotfarm_protocol::{Digest, Likeness, TaskKey};
use sqlx::Row;

use crate::db::{Conn, Result, from_json, from_word, to_json};

/// Keeps what a task is like; adding it again changes nothing.
pub(crate) async fn add(conn: &mut Conn, task: TaskKey, likeness: &Likeness) -> Result<()> {
    sqlx::query("INSERT INTO tasks (task, class, sizes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(task.to_string())
        .bind(likeness.class.to_string())
        .bind(to_json(&likeness.sizes))
        .execute(conn)
        .await?;
    Ok(())
}

/// The tasks of a class of which a device has records, measured in one way and before a time (Unix seconds), in a fixed order.
pub(crate) async fn known_of_class(
    conn: &mut Conn,
    class: Digest,
    device: Digest,
    protocol_version: u32,
    threads: u32,
    before: i64,
) -> Result<Vec<(TaskKey, Likeness)>> {
    let rows = sqlx::query(
        "SELECT task, sizes FROM tasks WHERE class = ? AND EXISTS (
             SELECT 1 FROM tuning_records AS r
             WHERE r.task = tasks.task AND r.device = ? AND r.protocol_version = ? AND r.threads = ?
                 AND r.record ->> '$.at' < ?)
         ORDER BY task",
    )
    .bind(class.to_string())
    .bind(device.to_string())
    .bind(protocol_version)
    .bind(threads)
    .bind(before)
    .fetch_all(conn)
    .await?;
    let parse = |row: &sqlx::sqlite::SqliteRow| {
        let task = from_word("TaskKey", &row.try_get::<String, _>(0)?)?;
        let sizes = from_json("Likeness", &row.try_get::<String, _>(1)?)?;
        Ok((task, Likeness { class, sizes }))
    };
    rows.iter().map(parse).collect()
}
