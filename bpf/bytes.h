/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many bytes of payload a connection sent and received, each byte once. */
#ifndef TCPSHIFT_BYTES_H
#define TCPSHIFT_BYTES_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include "connect.h"
#include "event.h"
#include "event_ctx.h"
#include "sock_state.h"

/* Whether the FIN was sent: it is the last byte of the write queue, so if everything was sent. */
static __always_inline bool has_sent_fin(const struct tcp_sock *tp, int old_state)
{
	switch (old_state) {
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
	case TCP_LAST_ACK:
		return tp->snd_nxt == tp->write_seq;
	}
	return false;
}

/*
 * What was acknowledged or is in flight, less the sequence numbers of SYN and FIN. Not
 * bytes_sent: it counts a segment again each time that the lower layer refuses it.
 * bytes_acked counts a client's SYN but not a server's. Where the role is not known,
 * bytes_sent shows whether a SYN was counted, unless a transmit was refused.
 *
 * A listener sends nothing: snd_nxt and snd_una are left from an earlier connection, because
 * tcp_disconnect() resets neither.
 */
static __always_inline __u64 payload_sent(const struct sock *sk, const struct tcp_sock *tp,
					  const struct event_ctx *ec)
{
	__u64 sent = tp->bytes_acked + (__u32)(tp->snd_nxt - tp->snd_una);

	if (ec->old_state == TCP_LISTEN ||
	    (is_connect_end(ec->old_state, ec->new_state) && !has_made_syn(sk, tp)))
		return 0;
	sent -= has_sent_fin(tp, ec->old_state);
	if (ec->role == ROLE_CLIENT)
		return sent - 1;
	if (ec->role == ROLE_UNKNOWN && !ec->is_repaired)
		return sent - (sent == tp->bytes_sent - tp->bytes_retrans + 1);
	return sent;
}

/*
 * Whether bytes_received lacks the FIN with which the socket enters CLOSE_WAIT now.
 * tcp_rcv_nxt_update() counts a FIN's place in the sequence, tcp_fastopen_add_skb() does
 * not: a FIN in the SYN, or in the SYN-ACK, of a fast open. Nothing has been read by then.
 */
static __always_inline bool is_fin_uncounted(const struct tcp_sock *tp)
{
	return (__u32)tp->bytes_received + 1 == tp->rcv_nxt - tp->copied_seq;
}

/* bytes_received less the peer's FIN; 0 if connect() failed. */
static __always_inline __u64 payload_received(const struct tcp_sock *tp, bool fin_arrived,
					      const struct event_ctx *ec)
{
	__u64 received = tp->bytes_received;

	if (is_connect_end(ec->old_state, ec->new_state))
		return 0;
	return received - (fin_arrived && !ec->fin_not_counted && received);
}

#endif
