//! What tasks are like.

use aotfarm_protocol::{Digest, Likeness, TaskKey};
use async_trait::async_trait;
use sqlx::types::Json;

use super::Unit;
use super::value::Word;
use crate::error::Result;
use crate::records::{ReadTasks, WriteTasks};

#[async_trait]
impl ReadTasks for Unit {
    async fn known_tasks(
        &mut self,
        class: Digest,
        device: Digest,
        protocol_version: u32,
        threads: u32,
        before: i64,
    ) -> Result<Vec<(TaskKey, Likeness)>> {
        let rows: Vec<(Word<TaskKey>, Json<_>)> = sqlx::query_as(
            "SELECT task, sizes FROM tasks WHERE class = ? AND EXISTS (
                 SELECT 1 FROM tuning_records AS r
                 WHERE r.task = tasks.task AND r.device = ? AND r.protocol_version = ? AND r.threads = ?
                     AND r.record ->> '$.at' < ?)
             ORDER BY task",
        )
        .bind(Word(class))
        .bind(Word(device))
        .bind(protocol_version)
        .bind(threads)
        .bind(before)
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(|(Word(task), Json(sizes))| (task, Likeness { class, sizes })).collect())
    }
}

#[async_trait]
impl WriteTasks for Unit {
    async fn add_task(&mut self, task: TaskKey, likeness: &Likeness) -> Result<()> {
        sqlx::query("INSERT INTO tasks (task, class, sizes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(Word(task))
            .bind(Word(likeness.class))
            .bind(Json(&likeness.sizes))
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
