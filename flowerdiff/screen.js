// The browser side of `ImageGrid` in nbs/20_dashboard.ipynb: images that say where they were clicked, or let a rectangle be drawn.

function copy(text) {
  const area = document.createElement('textarea')   // for pages without the right to the clipboard
  area.value = text
  document.body.append(area)
  area.select()
  document.execCommand('copy')
  area.remove()
}

function download(name, buffers) {
  const a = document.createElement('a'), url = URL.createObjectURL(new Blob(buffers))
  a.href = url
  a.download = name
  a.click()
  setTimeout(() => URL.revokeObjectURL(url), 60000)
}

function initialize({model}) {
  model.on('msg:custom', async (what, buffers) => {
    if (document.hidden) return                     // the same page may be open in another window
    if (what.copy) try { await navigator.clipboard.writeText(what.copy) } catch { copy(what.copy) }
    if (what.save) download(what.save, buffers)
  })
}

const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}

function render({model, el}) {
  const box = document.createElement('div'), img = new Image()
  let at = 0, from = null, rect = [], url           // place under the keyboard, corner where drawing began, rectangle, address of the image
  el.style.overflowX = 'auto'
  box.className = 'flowerdiff-screen'
  box.tabIndex = 0
  box.dataset.lmSuppressShortcuts = 'true'          // the notebook does not take the arrows for itself
  box.append(img)
  el.append(box)

  const show = () => {
    const old = url
    url = URL.createObjectURL(new Blob([model.get('value')]))
    img.src = url
    URL.revokeObjectURL(old)
    img.alt = box.ariaLabel = model.get('alt')
  }
  // in pixels of the small images: what is enlarged keeps its place
  const size = () => [img.naturalWidth, img.naturalHeight].map(v => v/model.get('scale'))
  img.onload = () => {
    const [W, H] = size()
    box.style.width = `min(100%, ${model.get('zoom')*W}px, ${62*W/H}vh)`
    // small windows scroll: images stay large enough to hit
    if (!model.get('draw')) box.style.minWidth = `${Math.min(40*model.get('cells')[1], W)}px`
    img.style.imageRendering = model.get('scale') > 1 ? 'auto' : ''
    marks()
  }

  // where the first cell is, and how large each is
  const cell = () => {
    const [count, cols, left] = model.get('cells'), [W, H] = size()
    return [left, (W - left)/cols, H/Math.ceil(count/cols)]
  }
  // which run and which image a cell shows
  const image = i => {
    const [, , , runs, each] = model.get('cells'), k = i % (runs*each)
    return [Math.floor(k/each), k % each]
  }
  const frame = (x, y, w, h, kind) => {
    const i = document.createElement('i'), [W, H] = size().map(v => v/100)
    i.className = kind
    i.style.cssText = `left:${x/W}%;top:${y/H}%;width:${w/W}%;height:${h/H}%`
    box.append(i)
  }
  const marks = () => {
    box.querySelectorAll('i').forEach(e => e.remove())
    if (model.get('draw')) {
      if (rect.length) frame(rect[0], rect[1], rect[2] - rect[0], rect[3] - rect[1], 'rectangle')
      return
    }
    const [count, cols] = model.get('cells'), [left, w, h] = cell(), chosen = model.get('chosen').map(String)
    const one = (i, kind) => frame(left + i%cols*w, Math.floor(i/cols)*h, w, h, kind)
    for (let i = 0; i < count; i++) if (chosen.includes(String(image(i)))) one(i, 'chosen')
    if (at < count && box.matches(':focus-visible')) one(at, 'at')
  }

  // in the same pixels
  const where = e => {
    const r = img.getBoundingClientRect(), [W, H] = size(), f = (v, size, most) => Math.max(0, Math.min(most, v/size*most))
    return [f(e.clientX - r.left, r.width, W), f(e.clientY - r.top, r.height, H)]
  }
  const keep = r => {
    rect = r.map(Math.round)
    if (rect[0] >= rect[2] || rect[1] >= rect[3]) rect = []
    marks()
    model.set('box', rect)
    model.save_changes()
  }
  const upto = e => {
    const [x, y] = where(e)
    rect = [Math.min(x, from[0]), Math.min(y, from[1]), Math.max(x, from[0]), Math.max(y, from[1])]
    marks()
  }

  box.onpointerdown = e => {
    if (!model.get('draw')) return
    e.preventDefault()
    box.focus({preventScroll: true})                // the rectangle begins where the mouse is
    box.setPointerCapture(e.pointerId)
    from = where(e)
    upto(e)
  }
  box.onpointermove = e => from && upto(e)
  box.onpointerup = e => {
    if (!from) return
    upto(e)
    from = null
    keep(rect)
  }
  box.onclick = e => {
    if (model.get('draw')) return
    const [count, cols] = model.get('cells'), [left, w, h] = cell(), [x, y] = where(e)
    const c = Math.floor((x - left)/w), i = c + cols*Math.floor(y/h)
    if (c < 0 || c >= cols || i >= count) return
    at = i
    model.send({pick: image(i)})
  }

  // arrows move the rectangle, with Shift its lower right corner
  const move = (d, resize) => {
    const [W, H] = size(), s = resize ? 0 : 1
    const [l, t, r, b] = rect.length ? rect : [W/4, H/4, 3*W/4, 3*H/4]
    const n = [l + s*d[0], t + s*d[1], r + d[0], b + d[1]]
    if (n[0] >= 0 && n[1] >= 0 && n[2] <= W && n[3] <= H && n[0] < n[2] && n[1] < n[3]) keep(n)
  }
  box.onkeydown = e => {
    const d = arrows[e.key], [count, cols] = model.get('cells')
    if (!d && e.key != 'Enter' && e.key != ' ') return
    e.preventDefault()
    e.stopPropagation()
    if (model.get('draw')) { if (d) move(d, e.shiftKey) }
    else if (d) { at = Math.max(0, Math.min(count - 1, at + d[0] + cols*d[1])); marks() }
    else if (at < count) model.send({pick: image(at)})
  }
  box.onfocus = box.onblur = marks

  model.on('change:value', show)
  model.on('change:chosen change:cells', marks)
  model.on('change:box', () => { rect = model.get('box'); marks() })
  rect = model.get('box')
  show()
}

export default {initialize, render}
