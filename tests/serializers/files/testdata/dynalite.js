// node fill.js DIR fill|read
const dynalite = require('dynalite');
const http = require('http');
const [dir, what] = process.argv.slice(2);
const server = dynalite({ path: dir, createTableMs: 0 });
const call = (target, body) => new Promise((resolve, reject) => {
  const req = http.request({ port: server.address().port, method: 'POST', headers: {
    'content-type': 'application/x-amz-json-1.0', 'x-amz-target': 'DynamoDB_20120810.' + target,
    authorization: 'AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b', 'x-amz-date': '20260101T000000Z' } },
    res => { let s = ''; res.on('data', d => s += d); res.on('end', () => res.statusCode === 200 ? resolve(JSON.parse(s)) : reject(new Error(s))); });
  req.on('error', reject); req.end(JSON.stringify(body));
});
server.listen(0, async () => {
  try {
    if (what === 'fill') {
      await call('CreateTable', { TableName: 'orders', AttributeDefinitions: [{ AttributeName: 'id', AttributeType: 'S' }], KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }], ProvisionedThroughput: { ReadCapacityUnits: 1, WriteCapacityUnits: 1 } });
      await new Promise(r => setTimeout(r, 300));
      for (let i = 0; i < 50; i++) await call('PutItem', { TableName: 'orders', Item: { id: { S: 'order-' + i }, n: { N: String(i) } } });
    }
    const all = await call('Scan', { TableName: 'orders' });
    console.log(JSON.stringify(all.Items.map(x => x.id.S + '=' + x.n.N).sort()));
    server.close(() => process.exit(0));
  } catch (e) { console.error(e.message); process.exit(1); }
});
