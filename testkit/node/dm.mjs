// Asks the bot one question with nostr-tools and prints the answer: an implementation of NIP-17,
// NIP-44, NIP-59, NIP-04 and NIP-42 that is not the bot's.
//
//   NSEC_HEX=… node --input-type=module - ask17|ask04 RELAY BOT_PUBKEY TEXT < dm.mjs
//
// Run in the folder that has node_modules. One line of JSON: {"question": id, "answer": text}.
import process from 'node:process'
import { useWebSocketImplementation, Relay } from 'nostr-tools/relay'
import { finalizeEvent, getPublicKey } from 'nostr-tools/pure'
import * as nip04 from 'nostr-tools/nip04'
import * as nip59 from 'nostr-tools/nip59'
import WebSocket from 'ws'

const LIMIT_MS = 120_000

const [command, url, bot, text] = process.argv.slice(2)
const key = Uint8Array.from(Buffer.from(process.env.NSEC_HEX, 'hex'))
const me = getPublicKey(key)
const now = () => Math.floor(Date.now() / 1000)

const protocols = {
  ask17: {
    // Wraps are dated up to two days back.
    filter: { kinds: [1059], '#p': [me], since: now() - 3 * 86_400 },
    question() {
      const rumor = nip59.createRumor({ kind: 14, content: text, tags: [['p', bot]], created_at: now() }, key)
      return { id: rumor.id, event: nip59.createWrap(nip59.createSeal(rumor, key, bot), bot) }
    },
    open(event) {
      const rumor = nip59.unwrapEvent(event, key)
      return { ...rumor, text: rumor.content }
    },
  },
  ask04: {
    filter: { kinds: [4], '#p': [me], since: now() - 60 },
    question() {
      const content = nip04.encrypt(key, bot, text)
      const event = finalizeEvent({ kind: 4, content, tags: [['p', bot]], created_at: now() }, key)
      return { id: event.id, event }
    },
    open: event => ({ ...event, text: nip04.decrypt(key, event.pubkey, event.content) }),
  },
}

useWebSocketImplementation(WebSocket)
const protocol = protocols[command]
const relay = await Relay.connect(url)
const sign = template => finalizeEvent(template, key)
relay.onauth = sign

const { id, event } = protocol.question()
await relay.publish(event)
const answer = await new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error(`no answer after ${LIMIT_MS} ms`)), LIMIT_MS)
  const listen = () =>
    relay.subscribe([protocol.filter], {
      onevent(event) {
        const { pubkey, tags, text } = protocol.open(event)
        if (pubkey === bot && tags.some(([name, value]) => name === 'e' && value === id)) resolve(text)
      },
      onclose(reason) {
        if (reason.startsWith('auth-required')) relay.auth(sign).then(listen, reject)
        else reject(new Error(`the relay closed the subscription: ${reason}`))
      },
    })
  listen()
})
process.stdout.write(JSON.stringify({ question: id, answer }) + '\n')
process.exit(0)
