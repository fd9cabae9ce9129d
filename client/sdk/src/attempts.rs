//! One call and its repetitions, within one deadline.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Request, Response};
use veilmatch_secret::os_entropy;

use crate::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often and how long a call may try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempts {
    left: u32,
    pause: Duration,
    after: Duration,
    deadline: Instant,
}

impl Attempts {
    /// At most `retries` repetitions, all within `after` from now.
    pub(crate) fn new(retries: u32, after: Duration) -> Self {
        // Further than a year counts as a year: instants do not reach everywhere.
        let after = after.min(Duration::from_secs(365 * 86_400));
        Self { left: retries, pause: FIRST_PAUSE, after, deadline: Instant::now() + after }
    }

    /// The time that is left, told to the server as well.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline.saturating_duration_since(Instant::now()));
        request
    }

    /// Waits for an answer until the deadline.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        match self.within(call).await? {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Error::from_status(&status, self.after)),
        }
    }

    /// Waits for anything until the deadline.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        timeout_at(self.deadline, work).await.map_err(|_| Error::Deadline { after: self.after })
    }

    /// Pauses before the next attempt. There is none if less than a tenth of the time would be left for it: its answer would
    /// hardly be heard, and a query might be counted all the same.
    ///
    /// # Errors
    /// The error of the last attempt, if there is no next one.
    pub(crate) async fn again(&mut self, error: Error) -> Result<(), Error> {
        let next = Instant::now() + jittered(self.pause);
        if self.left == 0 || next + self.after / 10 >= self.deadline {
            return Err(error);
        }
        self.left -= 1;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        sleep_until(next).await;
        Ok(())
    }
}

/// The pause before the n-th repetition, from 1.
pub(crate) fn pause(repetition: u32) -> Duration {
    jittered(FIRST_PAUSE.saturating_mul(1 << repetition.saturating_sub(1).min(16)).min(LONGEST_PAUSE))
}

/// A random half to all of it, so that clients that failed together do not return together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * f64::from(os_entropy().next_u32()) / f64::from(u32::MAX))
}
