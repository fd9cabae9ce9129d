//! Links to the holders that this one dials.

use std::sync::Arc;

use tokio::sync::mpsc;
use veilmatch_domain::Party;
use veilmatch_transport::{Connection, Link, LinkEvent, LinkOptions};
use veilmatch_wire::status;
use veilmatch_wire::v1::key_holder_client::KeyHolderClient;

use crate::calls::Shared;
use crate::connections::{Outgoing, StreamId};
use crate::core::Event;

/// Events of a link that wait while the holder's thread is busy; bytes are bounded apart.
const WAITING: usize = 16;

/// Keeps a link to a peer open until the service ends.
pub(crate) async fn dial(party: Party, connection: Connection, shared: Arc<Shared>) {
    let client = KeyHolderClient::new(connection);
    let mut overview = shared.overview.clone();
    // If it never runs, there is nothing to dial for.
    if overview.wait_for(|now| now.stopped.is_none()).await.is_err() {
        return;
    }
    let open = move |outgoing| {
        let (mut client, stopped) = (client.clone(), overview.borrow().stopped.clone());
        async move {
            match stopped {
                // Whoever is connected would wait for a holder that takes nothing.
                Some(cause) => Err(status(&cause)),
                None => client.peer(outgoing).await,
            }
        }
    };
    let options =
        LinkOptions { queue: shared.queue_limits(), message_limit: shared.message_limit(), ..LinkOptions::default() };
    let (sender, mut events) = mpsc::channel(WAITING);
    let link = Arc::new(Link::spawn(open, options, sender));
    let inlet = shared.inlet();
    let mut stream = StreamId::fresh();
    let mut said = false;
    while let Some(event) = events.recv().await {
        let goes_on = match event {
            LinkEvent::Up => {
                (stream, said) = (StreamId::fresh(), false);
                inlet.tell(Event::PeerUp { party, stream, to: Outgoing::Dialled(Arc::clone(&link)) }).await
            }
            LinkEvent::Message(bytes) => {
                inlet.pass(bytes, |bytes, room| Event::Peer { party, stream, bytes, room }).await
            }
            LinkEvent::Down(reason) => {
                // Once per break, not once per attempt.
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%party, "no link to a key holder: {reason}");
                }
                inlet.tell(Event::PeerDown { party, stream }).await
            }
            _ => true,
        };
        if !goes_on {
            return;
        }
    }
}
