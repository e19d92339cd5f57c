// Asks the bot one question with nostr-tools and prints its answers: an implementation of NIP-17,
// NIP-44, NIP-59, NIP-04 and NIP-42 that is not the bot's.
//
//   NSEC_HEX=… node --input-type=module - ask17|ask04 RELAY BOT_PUBKEY TEXT [HOW_MANY] < dm.mjs
//
// Run in the folder that has node_modules. One line of JSON: {"question": id, "answers": [text, …]}.
import process from 'node:process'
import { useWebSocketImplementation, Relay } from 'nostr-tools/relay'
import { finalizeEvent, getPublicKey } from 'nostr-tools/pure'
import * as nip04 from 'nostr-tools/nip04'
import * as nip59 from 'nostr-tools/nip59'
import WebSocket from 'ws'

const LIMIT_MS = 30_000

const [command, url, bot, text, count = '1'] = process.argv.slice(2)
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
relay.onauth = template => finalizeEvent(template, key)

const { id, event } = protocol.question()
await relay.publish(event)
const answers = new Map()
const done = new Promise((resolve, reject) => {
  setTimeout(() => reject(new Error(`${answers.size} of ${count} answers after ${LIMIT_MS} ms`)), LIMIT_MS).unref()
  relay.subscribe([protocol.filter], {
    onevent(event) {
      const answer = protocol.open(event)
      const about = answer.tags.some(([name, value]) => name === 'e' && value === id)
      if (answer.pubkey === bot && about) answers.set(answer.id, answer.text)
      if (answers.size >= Number(count)) resolve()
    },
    onclose: reason => reject(new Error(`the relay closed the subscription: ${reason}`)),
  })
})
await done
process.stdout.write(JSON.stringify({ question: id, answers: [...answers.values()] }) + '\n')
process.exit(0)
