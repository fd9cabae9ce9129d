//! Real loopback sockets: who gets through mutual TLS, and what a link does when its connection is cut.

mod links;
mod security;
mod support;
