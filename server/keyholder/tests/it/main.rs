//! Key holders as their neighbours see them: real processes or servers in this one, real sockets, mutual TLS.

mod callers;
mod command;
mod deployment;
mod full_disk;
mod lost;
mod starting;
mod together;
