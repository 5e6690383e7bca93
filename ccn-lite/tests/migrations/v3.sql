PRAGMA user_version = 3;
BEGIN TRANSACTION;
CREATE TABLE address_counts (
    owner TEXT NOT NULL,
    type TEXT NOT NULL,
    delegate TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (owner, type, delegate)
) WITHOUT ROWID;
INSERT INTO "address_counts" VALUES('0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','STORE','',1);
INSERT INTO "address_counts" VALUES('0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','AGGREGATE','',1);
INSERT INTO "address_counts" VALUES('0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','POST','',1);
INSERT INTO "address_counts" VALUES('FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','AGGREGATE','',1);
INSERT INTO "address_counts" VALUES('FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','POST','',1);
CREATE TABLE aggregate_elements (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL
);
INSERT INTO "aggregate_elements" VALUES('6087cbe1fc7e99a15e899b9e3cabe14b097d60fbb931494fb34d4d8fa26ea642','0xFba561a84A537fCaa567bb7A2257e7142701ae2A','pricing','{"instance":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"14250","holding":"1000","payg":"0.055"},"storage":{"credit":"0.17967489030626108","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"instance_confidential":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"28500","holding":"2000","payg":"0.11"},"storage":{"credit":"0.17967489030626108","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"instance_gpu_premium":{"compute_unit":{"disk_mib":61440,"memory_mib":6144,"vcpus":1},"price":{"compute_unit":{"credit":"86250","holding":"560","payg":"0.56"},"storage":{"credit":"0.17967489030626108","payg":"0.000000977"}},"tiers":[{"compute_units":16,"id":"tier-1","model":"A100","vram":81920},{"compute_units":24,"id":"tier-2","model":"H100","vram":81920}]},"instance_gpu_standard":{"compute_unit":{"disk_mib":61440,"memory_mib":6144,"vcpus":1},"price":{"compute_unit":{"credit":"43125","holding":"280","payg":"0.28"},"storage":{"credit":"0.17967489030626108","payg":"0.000000977"}},"tiers":[{"compute_units":3,"id":"tier-1","model":"RTX 4000 ADA","vram":20480},{"compute_units":4,"id":"tier-2","model":"RTX 3090","vram":24576},{"compute_units":6,"id":"tier-3","model":"RTX 4090","vram":24576},{"compute_units":12,"id":"tier-4","model":"L40S","vram":49152}]},"program":{"compute_unit":{"disk_mib":2048,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"11000","holding":"200","payg":"0.011"},"storage":{"credit":"0.977","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"program_persistent":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"55000","holding":"1000","payg":"0.055"},"storage":{"credit":"0.977","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"storage":{"price":{"storage":{"credit":"0.17967489030626108","holding":"0.333333333"}}},"web3_hosting":{"price":{"fixed":50,"storage":{"credit":"0.17967489030626108","holding":"0.333333333"}}}}',0.0);
INSERT INTO "aggregate_elements" VALUES('60871b15c16bf77ad9a683acd4cc52b26ef03a93000339fe249fc1e57a24c6db','0xFba561a84A537fCaa567bb7A2257e7142701ae2A','settings','{"authorized_allocation_signers":["0x98FF0F8b727A66385968276c59fb66947A24344c"],"community_wallet_address":"0x98FF0F8b727A66385968276c59fb66947A24344c","community_wallet_timestamp":0,"compatible_gpus":[],"last_crn_version":"0.0.0"}',0.0);
INSERT INTO "aggregate_elements" VALUES('344def8fd3ffd48b6f4cb2683af017a785b34698456ba2b7b79e6dfe700883c6','0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10','corechannel','{"nodes":[{"address":"","authorized":[],"banner":"","decentralization":1.0,"description":"","has_bonus":false,"hash":"9c9b4ab86e78e2098c5305ba92cf8cb212ef3776b071521fb6e02be1e90723f8","inactive_since":null,"locked":false,"manager":"0x98FF0F8b727A66385968276c59fb66947A24344c","multiaddress":"","name":"mainnet","owner":"0x98FF0F8b727A66385968276c59fb66947A24344c","performance":1.0,"picture":"","registration_url":"","resource_nodes":[],"reward":"0x98FF0F8b727A66385968276c59fb66947A24344c","score":1.0,"stakers":{},"status":"active","stream_reward":"0x98FF0F8b727A66385968276c59fb66947A24344c","terms_and_conditions":"","time":0.0,"total_staked":0.0}],"resource_nodes":[]}',0.0);
INSERT INTO "aggregate_elements" VALUES('2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea','0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','k','{"a":1}',1.70000000012345600132e+09);
INSERT INTO "aggregate_elements" VALUES('e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329','FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','k','{"a":1}',1.70000000012345600132e+09);
CREATE TABLE aggregates (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL,
    last_updated REAL NOT NULL,
    first_hash TEXT NOT NULL,
    last_hash TEXT NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
INSERT INTO "aggregates" VALUES('0xFba561a84A537fCaa567bb7A2257e7142701ae2A','pricing','{"instance":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"14250","holding":"1000","payg":"0.055"},"storage":{"credit":"0.17967489030626108","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"instance_confidential":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"28500","holding":"2000","payg":"0.11"},"storage":{"credit":"0.17967489030626108","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"instance_gpu_premium":{"compute_unit":{"disk_mib":61440,"memory_mib":6144,"vcpus":1},"price":{"compute_unit":{"credit":"86250","holding":"560","payg":"0.56"},"storage":{"credit":"0.17967489030626108","payg":"0.000000977"}},"tiers":[{"compute_units":16,"id":"tier-1","model":"A100","vram":81920},{"compute_units":24,"id":"tier-2","model":"H100","vram":81920}]},"instance_gpu_standard":{"compute_unit":{"disk_mib":61440,"memory_mib":6144,"vcpus":1},"price":{"compute_unit":{"credit":"43125","holding":"280","payg":"0.28"},"storage":{"credit":"0.17967489030626108","payg":"0.000000977"}},"tiers":[{"compute_units":3,"id":"tier-1","model":"RTX 4000 ADA","vram":20480},{"compute_units":4,"id":"tier-2","model":"RTX 3090","vram":24576},{"compute_units":6,"id":"tier-3","model":"RTX 4090","vram":24576},{"compute_units":12,"id":"tier-4","model":"L40S","vram":49152}]},"program":{"compute_unit":{"disk_mib":2048,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"11000","holding":"200","payg":"0.011"},"storage":{"credit":"0.977","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"program_persistent":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"55000","holding":"1000","payg":"0.055"},"storage":{"credit":"0.977","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"storage":{"price":{"storage":{"credit":"0.17967489030626108","holding":"0.333333333"}}},"web3_hosting":{"price":{"fixed":50,"storage":{"credit":"0.17967489030626108","holding":"0.333333333"}}}}',0.0,0.0,'6087cbe1fc7e99a15e899b9e3cabe14b097d60fbb931494fb34d4d8fa26ea642','6087cbe1fc7e99a15e899b9e3cabe14b097d60fbb931494fb34d4d8fa26ea642');
INSERT INTO "aggregates" VALUES('0xFba561a84A537fCaa567bb7A2257e7142701ae2A','settings','{"authorized_allocation_signers":["0x98FF0F8b727A66385968276c59fb66947A24344c"],"community_wallet_address":"0x98FF0F8b727A66385968276c59fb66947A24344c","community_wallet_timestamp":0,"compatible_gpus":[],"last_crn_version":"0.0.0"}',0.0,0.0,'60871b15c16bf77ad9a683acd4cc52b26ef03a93000339fe249fc1e57a24c6db','60871b15c16bf77ad9a683acd4cc52b26ef03a93000339fe249fc1e57a24c6db');
INSERT INTO "aggregates" VALUES('0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10','corechannel','{"nodes":[{"address":"","authorized":[],"banner":"","decentralization":1.0,"description":"","has_bonus":false,"hash":"9c9b4ab86e78e2098c5305ba92cf8cb212ef3776b071521fb6e02be1e90723f8","inactive_since":null,"locked":false,"manager":"0x98FF0F8b727A66385968276c59fb66947A24344c","multiaddress":"","name":"mainnet","owner":"0x98FF0F8b727A66385968276c59fb66947A24344c","performance":1.0,"picture":"","registration_url":"","resource_nodes":[],"reward":"0x98FF0F8b727A66385968276c59fb66947A24344c","score":1.0,"stakers":{},"status":"active","stream_reward":"0x98FF0F8b727A66385968276c59fb66947A24344c","terms_and_conditions":"","time":0.0,"total_staked":0.0}],"resource_nodes":[]}',0.0,0.0,'344def8fd3ffd48b6f4cb2683af017a785b34698456ba2b7b79e6dfe700883c6','344def8fd3ffd48b6f4cb2683af017a785b34698456ba2b7b79e6dfe700883c6');
INSERT INTO "aggregates" VALUES('0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','k','{"a":1}',1.70000000012345600132e+09,1.70000000012345600132e+09,'2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea','2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea');
INSERT INTO "aggregates" VALUES('FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','k','{"a":1}',1.70000000012345600132e+09,1.70000000012345600132e+09,'e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329','e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329');
CREATE TABLE assignments (
    vm TEXT PRIMARY KEY,
    node TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE balances (
    address TEXT NOT NULL COLLATE NOCASE,
    chain TEXT NOT NULL,
    dapp TEXT NOT NULL DEFAULT '',
    balance TEXT NOT NULL,
    height INTEGER NOT NULL,
    PRIMARY KEY (address, chain, dapp)
) WITHOUT ROWID;
INSERT INTO "balances" VALUES('0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','ETH','','1234.500000000000000000',0);
CREATE TABLE cost_totals (
    owner TEXT NOT NULL COLLATE NOCASE,
    payment_type TEXT NOT NULL,
    total TEXT NOT NULL,
    PRIMARY KEY (owner, payment_type)
) WITHOUT ROWID;
INSERT INTO "cost_totals" VALUES('0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','credit','0.001247742293793479');
CREATE TABLE costs (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL COLLATE NOCASE,
    item_hash TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    ref TEXT,
    payment_type TEXT NOT NULL,
    hold TEXT NOT NULL,
    stream TEXT NOT NULL,
    credit TEXT NOT NULL,
    size_mib TEXT
);
INSERT INTO "costs" VALUES(1,'0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','28cb6c56e9da5203ea524589fe28456c0ff71848abe3aa237e89e92981ba3660','STORAGE','STORAGE',NULL,'credit','8.333333325000000000','0.000000000000000000','0.001247742293793479','25');
CREATE TABLE credit_history (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL COLLATE NOCASE,
    amount INTEGER NOT NULL,
    credit_ref TEXT NOT NULL,
    credit_index INTEGER NOT NULL,
    price TEXT,
    bonus_amount TEXT,
    tx_hash TEXT,
    token TEXT,
    chain TEXT,
    provider TEXT,
    origin TEXT,
    origin_ref TEXT,
    payment_method TEXT,
    expiration REAL,
    message_time REAL NOT NULL,
    expense_count INTEGER,
    expense_size_mib REAL
);
INSERT INTO "credit_history" VALUES(1,'0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A',1000000,'ec5f2be97545312663e43949879098ad2fad7b322922662a55b6a36491a81107',0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'genesis',NULL,0.0,NULL,NULL);
CREATE TABLE credit_lots (
    address TEXT NOT NULL COLLATE NOCASE,
    credit_ref TEXT NOT NULL,
    credit_index INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    expiration REAL,
    message_time REAL NOT NULL,
    payment_method TEXT,
    PRIMARY KEY (credit_ref, credit_index)
) WITHOUT ROWID;
INSERT INTO "credit_lots" VALUES('0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','ec5f2be97545312663e43949879098ad2fad7b322922662a55b6a36491a81107',0,1000000,1000000,NULL,0.0,'genesis');
CREATE TABLE file_pins (
    id INTEGER PRIMARY KEY,
    file_hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    item_hash TEXT,
    owner TEXT,
    ref TEXT,
    created REAL NOT NULL,
    delete_by REAL
);
INSERT INTO "file_pins" VALUES(1,'48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d','grace',NULL,NULL,NULL,1.79534855307423925393e+09,1.79543495307423925399e+09);
INSERT INTO "file_pins" VALUES(2,'48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d','store','28cb6c56e9da5203ea524589fe28456c0ff71848abe3aa237e89e92981ba3660','0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A',NULL,1.79534855297481584553e+09,NULL);
CREATE TABLE file_tags (
    tag TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    file_hash TEXT NOT NULL,
    last_updated REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "file_tags" VALUES('28cb6c56e9da5203ea524589fe28456c0ff71848abe3aa237e89e92981ba3660','0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d',1.79534855297481584553e+09);
CREATE TABLE files (
    hash TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    type TEXT NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "files" VALUES('48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d',19,'file',1.79534855307423925393e+09);
CREATE TABLE gone (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    chain TEXT NOT NULL,
    sender TEXT NOT NULL,
    signature TEXT,
    item_type TEXT NOT NULL,
    time REAL NOT NULL,
    channel TEXT,
    owner TEXT NOT NULL,
    payment_type TEXT NOT NULL,
    size INTEGER,
    gone_at REAL NOT NULL,
    forgotten_by TEXT
) WITHOUT ROWID;
CREATE TABLE measurements (
    node TEXT NOT NULL,
    kind TEXT NOT NULL,
    measured_at REAL NOT NULL,
    message TEXT NOT NULL,
    measured TEXT NOT NULL,
    PRIMARY KEY (node, kind, measured_at, message)
) WITHOUT ROWID;
CREATE TABLE message_counts (
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (type, status)
) WITHOUT ROWID;
INSERT INTO "message_counts" VALUES('AGGREGATE','processed',2);
INSERT INTO "message_counts" VALUES('POST','processed',2);
INSERT INTO "message_counts" VALUES('STORE','processed',1);
CREATE TABLE message_tags (
    tag TEXT NOT NULL,
    at REAL NOT NULL,
    message TEXT NOT NULL,
    type TEXT NOT NULL,
    chain TEXT NOT NULL,
    sender TEXT NOT NULL,
    owner TEXT NOT NULL,
    channel TEXT,
    content_type TEXT,
    PRIMARY KEY (tag, at, message)
) WITHOUT ROWID;
CREATE TABLE messages (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    chain TEXT NOT NULL,
    sender TEXT NOT NULL,
    signature TEXT,
    item_type TEXT NOT NULL,
    item_content TEXT,
    content TEXT NOT NULL,
    time REAL NOT NULL,
    channel TEXT,
    size INTEGER NOT NULL,
    reception_time REAL NOT NULL,
    owner TEXT NOT NULL,
    content_type TEXT,
    content_ref TEXT,
    content_key TEXT,
    content_item_hash TEXT,
    payment_type TEXT,
    tags TEXT
, delegate TEXT, content_time REAL, updated REAL, amended_by TEXT);
INSERT INTO "messages" VALUES('569b99359efa19750ee61a20927b1879583e882c7212071b75e44b8d97756b01','processed','POST','ETH','0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','0xe1e2b00d9db9f12cda3ee3a8a874474c8a735a37218e257346b6d470328ddd7a5c2df59dc251058f668d34e303e050f4ee8516b2faf267eccabb71e03f4985b71b','inline','{"address":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","time":1700000000.123456,"type":"test","content":{"hello":["world"]}}','',1700000000.5,'TEST',125,1.79534855188400959964e+09,'0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','test',NULL,NULL,NULL,NULL,NULL,NULL,1.70000000012345600132e+09,1.70000000012345600132e+09,NULL);
INSERT INTO "messages" VALUES('1c6811e75a9195d3fe90e9d5481e5c7030e35e18a38f5dd9d3eda8566b753f67','processed','POST','SOL','FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','{"signature": "4YoAYXUdtvL1wdr2NC5qgu37RksYpf11fZcXDUhzAEyxXcSQ7cko2sffGswuUsHwRDYTwKdZEM7T9aVUcqv8pSK3", "publicKey": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"}','inline','{"address":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","time":1700000000.123456,"type":"test","content":{"hello":["world"]}}','',1700000000.5,'TEST',126,1.79534855194098854061e+09,'FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','test',NULL,NULL,NULL,NULL,NULL,NULL,1.70000000012345600132e+09,1.70000000012345600132e+09,NULL);
INSERT INTO "messages" VALUES('2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea','processed','AGGREGATE','ETH','0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','0x71c243db0822d2f127e46b566cb05928cd7439365b48666a73acc8994790110b331025face264619acf918ef356fbbead436997e07ca3f3ac69b6ab9c7584d5e1c','inline','{"address":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","time":1700000000.123456,"key":"k","content":{"a":1}}','',1700000000.5,'TEST',109,1.79534855203019070623e+09,'0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266',NULL,NULL,'k',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "messages" VALUES('e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329','processed','AGGREGATE','SOL','FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','{"signature": "26Gm2oQqtsuboo6fvnB4pCp6jiZbLBNhshC9fKmaQq3B4VqWrrRFwc4Hw67kVteYKkKrsZV1jYnHTHWT5j9QDG1Y", "publicKey": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"}','inline','{"address":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","time":1700000000.123456,"key":"k","content":{"a":1}}','',1700000000.5,'TEST',110,1.79534855210615420344e+09,'FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF',NULL,NULL,'k',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "messages" VALUES('28cb6c56e9da5203ea524589fe28456c0ff71848abe3aa237e89e92981ba3660','processed','STORE','ETH','0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','0xe0208de46bab16f18f523619214a4b42f7e6d352f733d6709a99bcab250728dd2c151a0309aa3c2ee355dfbc5ae16dc905d6af2082ab1fd10bfd7a46b1981c621c','inline','{"address":"0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A","item_hash":"48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d","item_type":"storage","payment":{"type":"credit"},"time":1795348552.9748158}','',1.79534855297481584553e+09,NULL,211,1.79534855309240555759e+09,'0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A',NULL,NULL,NULL,'48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d','credit',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE pending (
    item_hash TEXT PRIMARY KEY,
    envelope TEXT NOT NULL,
    reception_time REAL NOT NULL,
    retries INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL,
    error_code INTEGER,
    details TEXT
) WITHOUT ROWID;
INSERT INTO "pending" VALUES('070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"environment\":{\"internet\":true,\"aleph_api\":false,\"hypervisor\":\"qemu\",\"trusted_execution\":null},\"rootfs\":{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"size_mib\":20480}}","item_hash":"070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x50c0b7d8c7f89bcf6f22573bed325baa4d498a5edf1dc4e5a3633465df2c154722d73116bf7b6ed597a12d8ee62789c212f6d48f8c8f4e257ff59b6caee21cfe1b","time":1700000000.5,"type":"INSTANCE"}',1.79534855245611739155e+09,1,1.79534855327034807205e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}');
INSERT INTO "pending" VALUES('089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"hashes\":[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8\"],\"aggregates\":[],\"reason\":\"why\"}","item_hash":"089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x98613415d5b9db6c1749aaadf8d555fc346b9fc4de8b41237de2d6f1301af12e3a0da3e6364192aa434722463868871002dfb59d8d439dbc92a6292f8b03fc2f1b","time":1700000000.5,"type":"FORGET"}',1795348552.55917,1,1.79534855322886395456e+09,501,'{"errors":["Message aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is unknown"]}');
INSERT INTO "pending" VALUES('24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"environment\":{\"internet\":true,\"aleph_api\":false,\"hypervisor\":\"qemu\",\"trusted_execution\":null},\"rootfs\":{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"size_mib\":20480}}","item_hash":"24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"2KW1vPpka98iZNtbc4KaJFLbabdQLxwM5dG83QnLw5WF3heZoGqD1if94cnXbp9CVoeqd8k9suvBUUEFNRai1JgZ\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"INSTANCE"}',1795348552.49494,1,1.79534855333634114265e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}');
INSERT INTO "pending" VALUES('329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"item_type\":\"storage\",\"item_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":3,\"content_type\":\"text/plain\",\"ref\":\"name\",\"tags\":[\"t\"],\"metadata\":{\"a\":{\"b\":1}},\"payment\":{\"chain\":\"ETH\",\"receiver\":null,\"type\":\"credit\"}}","item_hash":"329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x3c80c1addd981a91bde111a46e1996a77f3e7ac17d67989d2acaa963517647cf7de2ce38d286bc2932613fcc4da33bce2e95e3892cf616702a4f4094dd94b16c1c","time":1700000000.5,"type":"STORE"}',1.79534855220865750312e+09,3,1.79534855501923441885e+09,4,'{"errors":["File aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is not here"]}');
INSERT INTO "pending" VALUES('4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"item_type\":\"storage\",\"item_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":3,\"content_type\":\"text/plain\",\"ref\":\"name\",\"tags\":[\"t\"],\"metadata\":{\"a\":{\"b\":1}},\"payment\":{\"chain\":\"ETH\",\"receiver\":null,\"type\":\"credit\"}}","item_hash":"4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"4v5dy3fNRZawhWbe8F5mryrb45kDphBPmUu7KSYbqS31DYhUDdXnt68sGwQFukwHihUztyYn6emy4zwHPgmVGsxr\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"STORE"}',1.79534855227868890767e+09,2,1.79534855336774730677e+09,4,'{"errors":["File aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is not here"]}');
INSERT INTO "pending" VALUES('557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"hashes\":[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8\"],\"aggregates\":[],\"reason\":\"why\"}","item_hash":"557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"5kMTorTg4qvTGPQK4sncnp4ntfszrMEWcziCeJ2AV4xKjsnKsD6ceFw43R2akFVpZrCM7niir8bpiwzgZ4y59K6U\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"FORGET"}',1.7953485526277008057e+09,1,1.7953485532143030166e+09,501,'{"errors":["Message aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is unknown"]}');
INSERT INTO "pending" VALUES('b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"type\":\"vm-function\",\"environment\":{\"reproducible\":true,\"internet\":true,\"aleph_api\":true,\"shared_cache\":false},\"code\":{\"encoding\":\"squashfs\",\"entrypoint\":\"main:app\",\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"interface\":\"asgi\",\"args\":[\"-x\"],\"use_latest\":true},\"runtime\":{\"ref\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"use_latest\":true,\"comment\":\"runtime\"},\"data\":{\"encoding\":\"zip\",\"mount\":\"/data\",\"ref\":\"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi\",\"use_latest\":null},\"export\":{\"encoding\":\"plain\",\"mount\":\"/out\"},\"on\":{\"http\":true,\"message\":[{\"sender\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\"}],\"persistent\":false}}","item_hash":"b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"2P3uoJ6J6sNdchBtaXCUgLzWg2Q8WCEYoRXjANrhGstEUssdw78k1eH3cV5RRmrEy47BqMzXmRmscR4sDZWJqppF\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"PROGRAM"}',1.79534855237260222433e+09,2,1.79534855366196751595e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]}');
INSERT INTO "pending" VALUES('bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"type\":\"vm-function\",\"environment\":{\"reproducible\":true,\"internet\":true,\"aleph_api\":true,\"shared_cache\":false},\"code\":{\"encoding\":\"squashfs\",\"entrypoint\":\"main:app\",\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"interface\":\"asgi\",\"args\":[\"-x\"],\"use_latest\":true},\"runtime\":{\"ref\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"use_latest\":true,\"comment\":\"runtime\"},\"data\":{\"encoding\":\"zip\",\"mount\":\"/data\",\"ref\":\"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi\",\"use_latest\":null},\"export\":{\"encoding\":\"plain\",\"mount\":\"/out\"},\"on\":{\"http\":true,\"message\":[{\"sender\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\"}],\"persistent\":false}}","item_hash":"bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0xf4c890a0b8de9461c16f55fb459478d708f5490104b1aa8ce4486c80e7ecd9b61804c76301187bf2c6ae0d7ebaf489ce628b769cdefd1e4a7ad91c82b85afb061c","time":1700000000.5,"type":"PROGRAM"}',1.79534855230769729611e+09,2,1.79534855479380321503e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]}');
CREATE TABLE pending_dependencies (
    dependency TEXT NOT NULL,
    item_hash TEXT NOT NULL REFERENCES pending (item_hash) ON DELETE CASCADE,
    PRIMARY KEY (dependency, item_hash)
) WITHOUT ROWID;
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8');
INSERT INTO "pending_dependencies" VALUES('bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi','b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8');
INSERT INTO "pending_dependencies" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8');
INSERT INTO "pending_dependencies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658');
INSERT INTO "pending_dependencies" VALUES('bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi','bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658');
INSERT INTO "pending_dependencies" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658');
CREATE TABLE rejected (
    item_hash TEXT PRIMARY KEY,
    envelope TEXT NOT NULL,
    error_code INTEGER NOT NULL,
    details TEXT
) WITHOUT ROWID;
INSERT INTO "rejected" VALUES('0fa37ff1038f33d39f0da676dd153836e0fb01ae0378727802dc914577faeddd','{"chain":"ES","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"]},\"authorized_keys\":[],\"variables\":{},\"environment\":{\"internet\":true},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"node\":{\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}},\"replaces\":null,\"runtime\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"comment\":\"runtime\"},\"workload\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"hash_tree\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"roothash\":\"0000000000000000000000000000000000000000000000000000000000000000\"},\"verification\":{\"backend\":\"sev_snp\",\"policy\":196608,\"measurements\":[{\"platform\":\"sev_snp\",\"registers\":{\"launch\":\"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\"},\"vcpu_type\":\"EPYC-v4\"}]},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"hash_tree\":\"QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8\",\"roothash\":\"1111111111111111111111111111111111111111111111111111111111111111\",\"comment\":\"weights\"}],\"gpu\":{\"vendor\":\"nvidia\",\"arch\":\"hopper\",\"count\":1,\"mode\":\"cc\",\"models\":[\"10de:2b85\"]}}","item_hash":"0fa37ff1038f33d39f0da676dd153836e0fb01ae0378727802dc914577faeddd","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"3YQAZ4Skcnv85ju65CUhGseAWXvjLmgNDYMQgcXuVZryycG5tK21EK74nS8S8UfKb17s6583JYDadybFxzSZ1ryK\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"V-PROGRAM"}',6,'{"errors":[{"account_credits":"0","min_runtime_days":1,"required_credits":"1367999.999999999999971200"}]}');
INSERT INTO "rejected" VALUES('c59292b6c989fc75ef47722fe9cdf8fe9f7c0f961d5e3568761ba629708c935a','{"chain":"AVAX","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"]},\"authorized_keys\":[],\"variables\":{},\"environment\":{\"internet\":true},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"node\":{\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}},\"replaces\":null,\"runtime\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"comment\":\"runtime\"},\"workload\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"hash_tree\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"roothash\":\"0000000000000000000000000000000000000000000000000000000000000000\"},\"verification\":{\"backend\":\"sev_snp\",\"policy\":196608,\"measurements\":[{\"platform\":\"sev_snp\",\"registers\":{\"launch\":\"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\"},\"vcpu_type\":\"EPYC-v4\"}]},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"hash_tree\":\"QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8\",\"roothash\":\"1111111111111111111111111111111111111111111111111111111111111111\",\"comment\":\"weights\"}],\"gpu\":{\"vendor\":\"nvidia\",\"arch\":\"hopper\",\"count\":1,\"mode\":\"cc\",\"models\":[\"10de:2b85\"]}}","item_hash":"c59292b6c989fc75ef47722fe9cdf8fe9f7c0f961d5e3568761ba629708c935a","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x6bf913df340aee1387804665db63508517ee07517d06164eccc5815390c1a7a84fd7d981862210049b8fe39dd9459ce6a0a1ad9c5e36b7644606c1aec17599a21c","time":1700000000.5,"type":"V-PROGRAM"}',1,'{"errors":["sender: not an address of the X or the P chain"]}');
CREATE TABLE removing (
    item_hash TEXT PRIMARY KEY REFERENCES messages (item_hash) ON DELETE CASCADE,
    delete_by REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE status_counts (
    status TEXT PRIMARY KEY,
    messages INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "status_counts" VALUES('pending',8);
INSERT INTO "status_counts" VALUES('rejected',2);
CREATE TABLE statuses (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    reception_time REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "statuses" VALUES('329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f','pending',1.79534855220865750312e+09);
INSERT INTO "statuses" VALUES('4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad','pending',1.79534855227868890767e+09);
INSERT INTO "statuses" VALUES('bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658','pending',1.79534855230769729611e+09);
INSERT INTO "statuses" VALUES('b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8','pending',1.79534855237260222433e+09);
INSERT INTO "statuses" VALUES('070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b','pending',1.79534855245611739155e+09);
INSERT INTO "statuses" VALUES('24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf','pending',1795348552.49494);
INSERT INTO "statuses" VALUES('089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3','pending',1795348552.55917);
INSERT INTO "statuses" VALUES('557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de','pending',1.7953485526277008057e+09);
INSERT INTO "statuses" VALUES('c59292b6c989fc75ef47722fe9cdf8fe9f7c0f961d5e3568761ba629708c935a','rejected',1.79534855271196579933e+09);
INSERT INTO "statuses" VALUES('0fa37ff1038f33d39f0da676dd153836e0fb01ae0378727802dc914577faeddd','rejected',1.79534855279552412032e+09);
CREATE TABLE vm_versions (
    vm TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    current TEXT NOT NULL,
    last_updated REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE vm_volumes (
    vm TEXT NOT NULL REFERENCES vms (item_hash) ON DELETE CASCADE,
    ref TEXT NOT NULL,
    PRIMARY KEY (ref, vm)
) WITHOUT ROWID;
CREATE TABLE vms (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    type TEXT NOT NULL,
    payment_type TEXT NOT NULL,
    persistent INTEGER NOT NULL,
    allow_amend INTEGER NOT NULL,
    replaces TEXT,
    created REAL NOT NULL
);
CREATE INDEX pending_due ON pending (next_attempt);
CREATE INDEX pending_dependencies_item ON pending_dependencies (item_hash);
CREATE INDEX aggregate_elements_key ON aggregate_elements (owner, key, created, item_hash);
CREATE INDEX file_pins_file ON file_pins (file_hash);
CREATE UNIQUE INDEX file_pins_item ON file_pins (item_hash, kind) WHERE item_hash IS NOT NULL;
CREATE INDEX file_pins_owner ON file_pins (owner, created DESC) WHERE kind = 'store';
CREATE INDEX file_pins_grace ON file_pins (delete_by) WHERE delete_by IS NOT NULL;
CREATE INDEX vms_replaces ON vms (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX vm_volumes_vm ON vm_volumes (vm);
CREATE INDEX credit_lots_address ON credit_lots (address, message_time, credit_ref, credit_index);
CREATE INDEX costs_owner ON costs (owner, payment_type);
CREATE INDEX costs_item ON costs (item_hash);
CREATE INDEX messages_reception ON messages (reception_time, item_hash, status);
CREATE INDEX statuses_reception ON statuses (status, reception_time, item_hash);
CREATE TRIGGER statuses_counted AFTER INSERT ON statuses BEGIN
    INSERT INTO status_counts VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET messages = messages + 1;
END;
CREATE TRIGGER statuses_discounted AFTER DELETE ON statuses BEGIN
    UPDATE status_counts SET messages = messages - 1 WHERE status = OLD.status;
END;
CREATE TRIGGER statuses_recounted AFTER UPDATE OF status ON statuses WHEN NEW.status <> OLD.status BEGIN
    UPDATE status_counts SET messages = messages - 1 WHERE status = OLD.status;
    INSERT INTO status_counts VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET messages = messages + 1;
END;
CREATE INDEX aggregates_key ON aggregates (key, owner);
CREATE INDEX messages_time ON messages (time DESC, type, channel, content_type, sender, chain);
CREATE INDEX messages_type ON messages (type, time DESC, chain);
CREATE INDEX messages_owner ON messages (owner, time DESC, channel, content_type, type, chain, delegate);
CREATE INDEX messages_delegate ON messages (delegate, time DESC, channel, content_type, type, chain)
    WHERE delegate IS NOT NULL;
CREATE INDEX messages_channel ON messages (channel, time DESC, content_type, type, chain) WHERE channel IS NOT NULL;
CREATE INDEX messages_content_type ON messages (content_type, time DESC, type, chain) WHERE content_type IS NOT NULL;
CREATE INDEX messages_ref ON messages (content_ref, time DESC) WHERE content_ref IS NOT NULL;
CREATE INDEX messages_key ON messages (content_key, time DESC) WHERE content_key IS NOT NULL;
CREATE INDEX messages_content_hash ON messages (content_item_hash, time DESC) WHERE content_item_hash IS NOT NULL;
CREATE INDEX messages_payment ON messages (payment_type, time DESC, type, chain) WHERE payment_type IS NOT NULL;
CREATE INDEX messages_chain ON messages (chain, time DESC, type) WHERE chain <> 'ETH';
CREATE INDEX messages_removing ON messages (time DESC) WHERE status = 'removing';
CREATE TRIGGER messages_tagged AFTER INSERT ON messages WHEN NEW.tags IS NOT NULL BEGIN
    INSERT INTO message_tags
        SELECT value, NEW.time, NEW.item_hash, NEW.type, NEW.chain, NEW.sender, NEW.owner, NEW.channel, NEW.content_type
        FROM json_each(NEW.tags) WHERE json_each.type = 'text' ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER messages_untagged AFTER DELETE ON messages WHEN OLD.tags IS NOT NULL BEGIN
    DELETE FROM message_tags WHERE message = OLD.item_hash AND at = OLD.time
        AND tag IN (SELECT value FROM json_each(OLD.tags) WHERE json_each.type = 'text');
END;
CREATE INDEX address_counts_delegate ON address_counts (delegate) WHERE delegate <> '';
CREATE TRIGGER messages_counted AFTER INSERT ON messages BEGIN
    INSERT INTO message_counts VALUES (NEW.type, NEW.status, 1)
        ON CONFLICT (type, status) DO UPDATE SET messages = messages + 1;
    INSERT INTO address_counts VALUES (NEW.owner, NEW.type, coalesce(NEW.delegate, ''), 1)
        ON CONFLICT (owner, type, delegate) DO UPDATE SET messages = messages + 1;
END;
CREATE TRIGGER messages_discounted AFTER DELETE ON messages BEGIN
    UPDATE message_counts SET messages = messages - 1 WHERE type = OLD.type AND status = OLD.status;
    UPDATE address_counts SET messages = messages - 1
        WHERE owner = OLD.owner AND type = OLD.type AND delegate = coalesce(OLD.delegate, '');
    DELETE FROM address_counts
        WHERE owner = OLD.owner AND type = OLD.type AND delegate = coalesce(OLD.delegate, '') AND messages = 0;
END;
CREATE TRIGGER messages_recounted AFTER UPDATE OF status ON messages WHEN NEW.status <> OLD.status BEGIN
    UPDATE message_counts SET messages = messages - 1 WHERE type = OLD.type AND status = OLD.status;
    INSERT INTO message_counts VALUES (NEW.type, NEW.status, 1)
        ON CONFLICT (type, status) DO UPDATE SET messages = messages + 1;
END;
CREATE INDEX posts_updated ON messages (updated DESC, item_hash) WHERE updated IS NOT NULL;
CREATE INDEX posts_owner ON messages (owner, updated DESC, content_type, channel) WHERE updated IS NOT NULL;
CREATE INDEX posts_type ON messages (content_type, updated DESC, channel) WHERE updated IS NOT NULL;
CREATE UNIQUE INDEX credit_history_ref ON credit_history (credit_ref, credit_index);
CREATE INDEX credit_history_address ON credit_history (address, message_time, id);
CREATE INDEX credit_history_resource ON credit_history (coalesce(origin, origin_ref))
    WHERE payment_method = 'credit_expense';
CREATE INDEX credit_lots_expiration ON credit_lots (expiration) WHERE expiration IS NOT NULL AND remaining > 0;
CREATE INDEX removing_due ON removing (delete_by);
CREATE INDEX costs_payment ON costs (payment_type, id);
CREATE INDEX gone_at ON gone (status, gone_at);
CREATE INDEX measurements_time ON measurements (measured_at);
CREATE INDEX measurements_message ON measurements (message);
CREATE TRIGGER measurements_forgotten AFTER DELETE ON messages WHEN OLD.content_type = 'aleph-network-metrics' BEGIN
    DELETE FROM measurements WHERE message = OLD.item_hash;
END;
COMMIT;
