// Promise.withResolvers came with Node 22; the libraries under test need it, the tests run on Node 20 too.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
