//! Alarms: the coordinator tells the host about incidents ([`crate::rules::incidents`]), once when one begins and once
//! when it is over, also across restarts.

use std::io::{self, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinError;

use crate::app::App;
use crate::chain::Chain;
use crate::rules::incidents::{Alarm, incidents};
use crate::store::StoreError;

/// Time between two checks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Time limit of the host's command.
const WITHIN: Duration = Duration::from_secs(10);

/// Time between two looks at a running command.
const GLANCE: Duration = Duration::from_millis(50);

/// Alarms that wait for the command; further ones are dropped and counted.
const MOST_WAITING: usize = 256;

/// Checks the farm until the coordinator stops, and runs the host's command, if there is one.
pub async fn watch(app: App, command: Option<String>) {
    let (sender, mut waiting) = mpsc::channel::<Alarm>(MOST_WAITING);
    let calling = async {
        while let Some(alarm) = waiting.recv().await {
            if let Some(command) = &command {
                tell(&app, command, alarm).await;
            }
        }
    };
    let looking = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match look(&app).await {
                Ok(alarms) => alarms.into_iter().for_each(|alarm| {
                    if sender.try_send(alarm).is_err() {
                        tracing::error!(
                            "too many alarms wait for the alarm command: one is dropped"
                        );
                        app.metrics().alarm("dropped");
                    }
                }),
                Err(error) => {
                    tracing::error!("incidents could not be checked: {}", Chain(&error))
                }
            }
        }
    };
    tokio::select! {
        () = calling => {}
        () = looking => {}
        () = app.stopping() => {}
    }
}

/// Incidents that have begun or ended since the last check.
///
/// # Errors
/// When the store fails; the next check then finds them.
pub async fn look(app: &App) -> Result<Vec<Alarm>, StoreError> {
    let now = app.now();
    let is = incidents(&app.store().agents_now(now).await?);
    let alarms = app.store().note_incidents(is, now).await?;
    for Alarm { event, id, incident, .. } in &alarms {
        tracing::warn!(incident = id, kind = incident.kind.name(), "{event}: {}", incident.text);
    }
    Ok(alarms)
}

async fn tell(app: &App, command: &str, alarm: Alarm) {
    let text = serde_json::to_string(&alarm).expect("plain data serializes to JSON");
    let (command, stopped) = (command.to_owned(), app.clone());
    let called = tokio::task::spawn_blocking(move || {
        call(&command, &text, WITHIN, &|| stopped.is_stopping())
    });
    let outcome = called.await.unwrap_or_else(|error| Err(CommandError::Lost(error)));
    match outcome {
        Ok(()) => app.metrics().alarm("delivered"),
        Err(error) => {
            app.metrics().alarm("failed");
            tracing::error!(
                incident = alarm.id,
                event = alarm.event,
                "the alarm command failed: {}",
                Chain(&error)
            );
        }
    }
}

/// Why the host's command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("it could not be started")]
    Start(#[source] io::Error),
    #[error("it could not be waited for")]
    Wait(#[source] io::Error),
    #[error("it ended with {0}")]
    Status(ExitStatus),
    #[error("it did not end within {} s and was killed", .0.as_secs_f64())]
    Late(Duration),
    #[error("the coordinator stops")]
    Stopping,
    #[error("the alarm task ended early")]
    Lost(#[source] JoinError),
}

/// Runs a command with a text on its stdin. At the time limit, the command and all its child processes are killed.
fn call(
    command: &str,
    text: &str,
    within: Duration,
    stopped: &dyn Fn() -> bool,
) -> Result<(), CommandError> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let begun = Instant::now();
    let mut child = shell.spawn().map_err(CommandError::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // The text fits into a pipe's buffer, and the command need not read it.
        let _ = writeln!(stdin, "{text}");
    }
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return ended(status),
            Ok(None) if begun.elapsed() < within && !stopped() => std::thread::sleep(GLANCE),
            Ok(None) => {
                end(&mut child);
                return Err(match stopped() {
                    true => CommandError::Stopping,
                    false => CommandError::Late(within),
                });
            }
            Err(error) => {
                end(&mut child);
                return Err(CommandError::Wait(error));
            }
        }
    }
}

fn ended(status: ExitStatus) -> Result<(), CommandError> {
    if status.success() { Ok(()) } else { Err(CommandError::Status(status)) }
}

fn end(child: &mut Child) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process_group};
        // The command may have ended in the meantime.
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_command_gets_the_text_and_ends_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("heard");
        let minute = Duration::from_secs(60);
        let command = format!("cat > {}", file.display());
        call(&command, "{\"a\": 1}", minute, &|| false).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"a\": 1}\n");
        let failed = call("exit 3", "", minute, &|| false).unwrap_err().to_string();
        assert!(failed.contains('3'), "{failed}");
        // Its child processes are killed too: they would keep the file open.
        let begun = Instant::now();
        let slow = "sleep 60 & sleep 60";
        let late = call(slow, "", Duration::from_millis(100), &|| false).unwrap_err().to_string();
        assert!(late.contains("was killed"), "{late}");
        let stopping = call(slow, "", minute, &|| true).unwrap_err().to_string();
        assert!(stopping.contains("stops"), "{stopping}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
