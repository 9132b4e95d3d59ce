// The browser side of `ImageGrid` in nbs/24_screen.ipynb: images to click on, or one to draw a rectangle on.

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

const element = (name, className = '') => {
  const e = document.createElement(name)
  e.className = className
  return e
}

// Images to select, with the mouse, or with arrow keys and Enter
function select({model, box, images}) {
  let at = 0                                        // place under the keyboard
  const pick = i => { if (images()[at = i]) model.send({pick: model.get('labels').length ? i % model.get('cells')[1] : i}) }
  const mark = () => images().forEach((e, i) => e.classList.toggle('at', i == at && box.matches(':focus-visible')))
  const move = ([x, y]) => {
    const all = images(), cols = all.filter(e => e.offsetTop == all[0].offsetTop).length
    at = Math.max(0, Math.min(all.length - 1, at + x + cols*y))
    mark()
  }
  box.onclick = e => { const i = images().indexOf(e.target.closest('figure')); if (i >= 0) pick(i) }
  box.onfocus = box.onblur = mark
  return (arrow, key) => arrow ? move(arrow) : pick(at)
}

// An image to draw a rectangle on, or to move one with the arrow keys, with Shift its lower right corner
function drawRectangle({model, box, images}) {
  let from = null, rect = model.get('box')          // corner where drawing began, rectangle in pixels of the small image
  const frame = element('i', 'rectangle')
  const size = () => { const c = images()[0].firstChild, k = model.get('scale'); return [c.width/k, c.height/k] }
  const show = () => {
    if (!images()[0]) return
    const [W, H] = size().map(v => v/100), [l, t, r, b] = rect
    images()[0].append(frame)
    frame.style.cssText = rect.length ? `left:${l/W}%;top:${t/H}%;width:${(r - l)/W}%;height:${(b - t)/H}%` : 'display:none'
  }
  const keep = r => {
    rect = r.map(Math.round)
    if (rect[0] >= rect[2] || rect[1] >= rect[3]) rect = []
    model.set('box', rect)
    model.save_changes()
    show()
  }
  const where = e => {
    const r = images()[0].getBoundingClientRect(), [W, H] = size(), f = (v, length, most) => Math.max(0, Math.min(most, v/length*most))
    return [f(e.clientX - r.left, r.width, W), f(e.clientY - r.top, r.height, H)]
  }
  const upto = e => {
    const [x, y] = where(e)
    rect = [Math.min(x, from[0]), Math.min(y, from[1]), Math.max(x, from[0]), Math.max(y, from[1])]
    show()
  }
  box.onpointerdown = e => {
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
  model.on('change:box', () => { rect = model.get('box'); show() })
  return (arrow, key) => {
    if (!arrow) return show()
    const [W, H] = size(), s = key?.shiftKey ? 0 : 1, [x, y] = arrow
    const [l, t, r, b] = rect.length ? rect : [W/4, H/4, 3*W/4, 3*H/4]
    const n = [l + s*x, t + s*y, r + x, b + y]
    if (n[0] >= 0 && n[1] >= 0 && n[2] <= W && n[3] <= H && n[0] < n[2] && n[1] < n[3]) keep(n)
  }
}

const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}

function render({model, el}) {
  const caption = element('div', 'flowerdiff-caption'), box = element('div', 'flowerdiff-screen')
  let images = [], layout = '', turn = 0
  box.tabIndex = 0
  box.dataset.lmSuppressShortcuts = 'true'          // the notebook does not take the arrows for itself
  el.append(caption, box)
  const press = (model.get('draw') ? drawRectangle : select)({model, box, images: () => images})

  // all images together, or a row with a label for each moment
  const arrange = (count, labels) => {
    const rows = labels.length || 1, each = count/rows, now = [count, rows, each].join()
    if (layout == now) return
    layout = now
    images = Array.from({length: count}, () => {
      const image = element('figure')
      image.append(element('canvas'), element('figcaption'))
      return image
    })
    box.replaceChildren(...Array.from({length: rows}, (_, k) => {
      const row = element('div', 'row'), group = element('div', 'images')
      group.append(...images.slice(k*each, (k + 1)*each))
      row.append(element('span'), group)
      return row
    }))
    box.style.setProperty('--each', each)
  }

  const draw = async () => {
    const get = name => model.get(name), [count, cols] = get('cells'), labels = get('labels'), mine = ++turn
    if (!get('value').byteLength) return
    const sheet = await createImageBitmap(new Blob([get('value')]))
    if (mine != turn) return                        // a newer one is on its way
    arrange(count, labels)
    caption.textContent = get('caption')
    box.ariaLabel = get('alt')
    box.style.setProperty('--cell', `${get('cell')}px`)
    for (const name of ['named', 'pixels', 'draw']) box.classList.toggle(name, get(name))
    box.classList.toggle('by-time', labels.length > 0)
    box.querySelectorAll('.row > span').forEach((e, k) => e.textContent = labels[k] || '')
    const gap = count > 1 ? 2 : 0, w = (sheet.width - gap)/cols - gap, h = (sheet.height - gap)/Math.ceil(count/cols) - gap
    images.forEach((image, i) => {
      const canvas = image.firstChild, k = labels.length ? i % cols : i
      if (canvas.width != w || canvas.height != h) [canvas.width, canvas.height] = [w, h]
      canvas.getContext('2d').drawImage(sheet, gap + i%cols*(w + gap), gap + Math.floor(i/cols)*(h + gap), w, h, 0, 0, w, h)
      image.title = canvas.nextSibling.textContent = get('names')[k] || ''
      image.classList.toggle('chosen', get('chosen').includes(k))
    })
    if (get('draw')) press()                        // shows the rectangle
  }

  box.onkeydown = e => {
    if (!arrows[e.key] && e.key != 'Enter' && e.key != ' ') return
    e.preventDefault()
    e.stopPropagation()
    press(arrows[e.key], e)
  }
  model.on('change', draw)
  model.on('msg:custom', async ({look}) => {
    if (!look) return
    if (look == 'bar') {                            // the line around it, which is there before it is shown
      const line = el.closest('.flowerdiff').querySelector('.widget-hprogress').parentElement
      return line.scrollIntoView({block: 'nearest', behavior: 'smooth'})
    }
    await draw()
    const {top, bottom} = el.getBoundingClientRect()  // out of sight on a telephone
    if (top < 0 || bottom > innerHeight) el.scrollIntoView({block: 'start', behavior: 'smooth'})
  })
  draw()
}

export default {initialize, render}
