// Package raftnet is the network of Raft: it carries the messages and snapshots of the Raft library, as
// frames, over connections of its own (package peerconn) and as datagrams where packets are lost. It
// implements the transport of dragonboat (package raftio) and is, besides consensus, the only user of
// dragonboat.
//
// consensus hands a Factory to the library, which sends what the shards say to other nodes through it;
// what comes in goes to the library's handlers, once it is known to be what the node at the other end of the
// connection may send. What a message means is not looked at here.
//
// The library's own connections wait as long again as a fault of the network lasted before they notice
// that it is over (TCP's retransmission backs off), and the node that came back takes no part until then.
package raftnet
