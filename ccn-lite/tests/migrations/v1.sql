PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE aggregate_elements (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL
);
INSERT INTO "aggregate_elements" VALUES('6087cbe1fc7e99a15e899b9e3cabe14b097d60fbb931494fb34d4d8fa26ea642','0xFba561a84A537fCaa567bb7A2257e7142701ae2A','pricing','{"instance":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"14250","holding":"1000","payg":"0.055"},"storage":{"credit":"0.17967489030626108","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"instance_confidential":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"28500","holding":"2000","payg":"0.11"},"storage":{"credit":"0.17967489030626108","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"instance_gpu_premium":{"compute_unit":{"disk_mib":61440,"memory_mib":6144,"vcpus":1},"price":{"compute_unit":{"credit":"86250","holding":"560","payg":"0.56"},"storage":{"credit":"0.17967489030626108","payg":"0.000000977"}},"tiers":[{"compute_units":16,"id":"tier-1","model":"A100","vram":81920},{"compute_units":24,"id":"tier-2","model":"H100","vram":81920}]},"instance_gpu_standard":{"compute_unit":{"disk_mib":61440,"memory_mib":6144,"vcpus":1},"price":{"compute_unit":{"credit":"43125","holding":"280","payg":"0.28"},"storage":{"credit":"0.17967489030626108","payg":"0.000000977"}},"tiers":[{"compute_units":3,"id":"tier-1","model":"RTX 4000 ADA","vram":20480},{"compute_units":4,"id":"tier-2","model":"RTX 3090","vram":24576},{"compute_units":6,"id":"tier-3","model":"RTX 4090","vram":24576},{"compute_units":12,"id":"tier-4","model":"L40S","vram":49152}]},"program":{"compute_unit":{"disk_mib":2048,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"11000","holding":"200","payg":"0.011"},"storage":{"credit":"0.977","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"program_persistent":{"compute_unit":{"disk_mib":20480,"memory_mib":2048,"vcpus":1},"price":{"compute_unit":{"credit":"55000","holding":"1000","payg":"0.055"},"storage":{"credit":"0.977","holding":"0.05","payg":"0.000000977"}},"tiers":[{"compute_units":1,"id":"tier-1"},{"compute_units":2,"id":"tier-2"},{"compute_units":4,"id":"tier-3"},{"compute_units":6,"id":"tier-4"},{"compute_units":8,"id":"tier-5"},{"compute_units":12,"id":"tier-6"}]},"storage":{"price":{"storage":{"credit":"0.17967489030626108","holding":"0.333333333"}}},"web3_hosting":{"price":{"fixed":50,"storage":{"credit":"0.17967489030626108","holding":"0.333333333"}}}}',0.0);
INSERT INTO "aggregate_elements" VALUES('60871b15c16bf77ad9a683acd4cc52b26ef03a93000339fe249fc1e57a24c6db','0xFba561a84A537fCaa567bb7A2257e7142701ae2A','settings','{"authorized_allocation_signers":["0x95531851b12cCA1A4733A4250E55F7fF167c2F70"],"community_wallet_address":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","community_wallet_timestamp":0,"compatible_gpus":[],"last_crn_version":"0.0.0"}',0.0);
INSERT INTO "aggregate_elements" VALUES('344def8fd3ffd48b6f4cb2683af017a785b34698456ba2b7b79e6dfe700883c6','0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10','corechannel','{"nodes":[{"address":"","authorized":[],"banner":"","decentralization":1.0,"description":"","has_bonus":false,"hash":"f17d2947b69885d4803baa68bd0e6cfda00e7b0b021a1b18c7d1b666137e6c21","inactive_since":null,"locked":false,"manager":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","multiaddress":"","name":"mainnet","owner":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","performance":1.0,"picture":"","registration_url":"","resource_nodes":[],"reward":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","score":1.0,"stakers":{},"status":"active","stream_reward":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","terms_and_conditions":"","time":0.0,"total_staked":0.0}],"resource_nodes":[]}',0.0);
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
INSERT INTO "aggregates" VALUES('0xFba561a84A537fCaa567bb7A2257e7142701ae2A','settings','{"authorized_allocation_signers":["0x95531851b12cCA1A4733A4250E55F7fF167c2F70"],"community_wallet_address":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","community_wallet_timestamp":0,"compatible_gpus":[],"last_crn_version":"0.0.0"}',0.0,0.0,'60871b15c16bf77ad9a683acd4cc52b26ef03a93000339fe249fc1e57a24c6db','60871b15c16bf77ad9a683acd4cc52b26ef03a93000339fe249fc1e57a24c6db');
INSERT INTO "aggregates" VALUES('0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10','corechannel','{"nodes":[{"address":"","authorized":[],"banner":"","decentralization":1.0,"description":"","has_bonus":false,"hash":"f17d2947b69885d4803baa68bd0e6cfda00e7b0b021a1b18c7d1b666137e6c21","inactive_since":null,"locked":false,"manager":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","multiaddress":"","name":"mainnet","owner":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","performance":1.0,"picture":"","registration_url":"","resource_nodes":[],"reward":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","score":1.0,"stakers":{},"status":"active","stream_reward":"0x95531851b12cCA1A4733A4250E55F7fF167c2F70","terms_and_conditions":"","time":0.0,"total_staked":0.0}],"resource_nodes":[]}',0.0,0.0,'344def8fd3ffd48b6f4cb2683af017a785b34698456ba2b7b79e6dfe700883c6','344def8fd3ffd48b6f4cb2683af017a785b34698456ba2b7b79e6dfe700883c6');
INSERT INTO "aggregates" VALUES('0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','k','{"a":1}',1.70000000012345600132e+09,1.70000000012345600132e+09,'2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea','2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea');
INSERT INTO "aggregates" VALUES('FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','k','{"a":1}',1.70000000012345600132e+09,1.70000000012345600132e+09,'e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329','e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329');
CREATE TABLE balances (
    address TEXT NOT NULL COLLATE NOCASE,
    chain TEXT NOT NULL,
    dapp TEXT NOT NULL DEFAULT '',
    balance TEXT NOT NULL,
    height INTEGER NOT NULL,
    PRIMARY KEY (address, chain, dapp)
) WITHOUT ROWID;
INSERT INTO "balances" VALUES('0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','ETH','','1234.5',0);
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
INSERT INTO "costs" VALUES(1,'0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','3280adaa2d09b2bba9c6255d63eef4f3faff9ee31b0179a79c2ea38b278cf880','STORAGE','STORAGE',NULL,'credit','8.333333325000000000','0.000000000000000000','0.001247742293793479','25');
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
INSERT INTO "file_pins" VALUES(1,'48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d','grace',NULL,NULL,NULL,1.79529815915100073812e+09,1.79538455915100073814e+09);
INSERT INTO "file_pins" VALUES(2,'48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d','store','3280adaa2d09b2bba9c6255d63eef4f3faff9ee31b0179a79c2ea38b278cf880','0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A',NULL,1.79529815913851237296e+09,NULL);
CREATE TABLE file_tags (
    tag TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    file_hash TEXT NOT NULL,
    last_updated REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "file_tags" VALUES('3280adaa2d09b2bba9c6255d63eef4f3faff9ee31b0179a79c2ea38b278cf880','0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d',1.79529815913851237296e+09);
CREATE TABLE files (
    hash TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    type TEXT NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "files" VALUES('48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d',19,'file',1.79529815915100073812e+09);
CREATE TABLE forgotten (
    item_hash TEXT PRIMARY KEY,
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
    forgotten_at REAL NOT NULL,
    forgotten_by TEXT NOT NULL
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
);
INSERT INTO "messages" VALUES('569b99359efa19750ee61a20927b1879583e882c7212071b75e44b8d97756b01','processed','POST','ETH','0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','0xe1e2b00d9db9f12cda3ee3a8a874474c8a735a37218e257346b6d470328ddd7a5c2df59dc251058f668d34e303e050f4ee8516b2faf267eccabb71e03f4985b71b','inline','{"address":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","time":1700000000.123456,"type":"test","content":{"hello":["world"]}}','{"address":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","content":{"hello":["world"]},"time":1700000000.123456,"type":"test"}',1700000000.5,'TEST',125,1.79529815135818529127e+09,'0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','test',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "messages" VALUES('1c6811e75a9195d3fe90e9d5481e5c7030e35e18a38f5dd9d3eda8566b753f67','processed','POST','SOL','FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','{"signature": "4YoAYXUdtvL1wdr2NC5qgu37RksYpf11fZcXDUhzAEyxXcSQ7cko2sffGswuUsHwRDYTwKdZEM7T9aVUcqv8pSK3", "publicKey": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"}','inline','{"address":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","time":1700000000.123456,"type":"test","content":{"hello":["world"]}}','{"address":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","content":{"hello":["world"]},"time":1700000000.123456,"type":"test"}',1700000000.5,'TEST',126,1.79529815138657712937e+09,'FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','test',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "messages" VALUES('2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea','processed','AGGREGATE','ETH','0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','0x71c243db0822d2f127e46b566cb05928cd7439365b48666a73acc8994790110b331025face264619acf918ef356fbbead436997e07ca3f3ac69b6ab9c7584d5e1c','inline','{"address":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","time":1700000000.123456,"key":"k","content":{"a":1}}','{"address":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","content":{"a":1},"key":"k","time":1700000000.123456}',1700000000.5,'TEST',109,1.79529815141390705103e+09,'0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266',NULL,NULL,'k',NULL,NULL,NULL);
INSERT INTO "messages" VALUES('e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329','processed','AGGREGATE','SOL','FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','{"signature": "26Gm2oQqtsuboo6fvnB4pCp6jiZbLBNhshC9fKmaQq3B4VqWrrRFwc4Hw67kVteYKkKrsZV1jYnHTHWT5j9QDG1Y", "publicKey": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"}','inline','{"address":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","time":1700000000.123456,"key":"k","content":{"a":1}}','{"address":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","content":{"a":1},"key":"k","time":1700000000.123456}',1700000000.5,'TEST',110,1.79529815143570590021e+09,'FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF',NULL,NULL,'k',NULL,NULL,NULL);
INSERT INTO "messages" VALUES('3280adaa2d09b2bba9c6255d63eef4f3faff9ee31b0179a79c2ea38b278cf880','processed','STORE','ETH','0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A','0xe2d67b14daf90467d567d147cc669536e37050f110b99b19802efac4c42dfd014def7c4a28de043f895bfe44e5f0e4d20ae1b8015ce3174a9ce46c098937b5bb1b','inline','{"address":"0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A","item_hash":"48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d","item_type":"storage","payment":{"type":"credit"},"time":1795298159.1385124}','{"address":"0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A","item_hash":"48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d","item_type":"storage","payment":{"type":"credit"},"time":1795298159.1385124}',1.79529815913851237296e+09,NULL,211,1.79529815915177154536e+09,'0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A',NULL,NULL,NULL,'48a666161a24875eeefaf13173e445c098ea985c3d17c781edc0d17eda89de6d','credit',NULL);
CREATE TABLE pending (
    item_hash TEXT PRIMARY KEY,
    envelope TEXT NOT NULL,
    reception_time REAL NOT NULL,
    retries INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL,
    error_code INTEGER,
    details TEXT
) WITHOUT ROWID;
INSERT INTO "pending" VALUES('070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"environment\":{\"internet\":true,\"aleph_api\":false,\"hypervisor\":\"qemu\",\"trusted_execution\":null},\"rootfs\":{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"size_mib\":20480}}","item_hash":"070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x50c0b7d8c7f89bcf6f22573bed325baa4d498a5edf1dc4e5a3633465df2c154722d73116bf7b6ed597a12d8ee62789c212f6d48f8c8f4e257ff59b6caee21cfe1b","time":1700000000.5,"type":"INSTANCE"}',1.79529815654086422919e+09,4,1.79529816336405801768e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}');
INSERT INTO "pending" VALUES('089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"hashes\":[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8\"],\"aggregates\":[],\"reason\":\"why\"}","item_hash":"089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x98613415d5b9db6c1749aaadf8d555fc346b9fc4de8b41237de2d6f1301af12e3a0da3e6364192aa434722463868871002dfb59d8d439dbc92a6292f8b03fc2f1b","time":1700000000.5,"type":"FORGET"}',1.79529815768010926244e+09,3,1.79529816039974951741e+09,501,'{"errors":["Message aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is unknown"]}');
INSERT INTO "pending" VALUES('24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"environment\":{\"internet\":true,\"aleph_api\":false,\"hypervisor\":\"qemu\",\"trusted_execution\":null},\"rootfs\":{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"size_mib\":20480}}","item_hash":"24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"2KW1vPpka98iZNtbc4KaJFLbabdQLxwM5dG83QnLw5WF3heZoGqD1if94cnXbp9CVoeqd8k9suvBUUEFNRai1JgZ\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"INSTANCE"}',1.79529815662023901944e+09,4,1.79529816096187400812e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}');
INSERT INTO "pending" VALUES('329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"item_type\":\"storage\",\"item_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":3,\"content_type\":\"text/plain\",\"ref\":\"name\",\"tags\":[\"t\"],\"metadata\":{\"a\":{\"b\":1}},\"payment\":{\"chain\":\"ETH\",\"receiver\":null,\"type\":\"credit\"}}","item_hash":"329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0x3c80c1addd981a91bde111a46e1996a77f3e7ac17d67989d2acaa963517647cf7de2ce38d286bc2932613fcc4da33bce2e95e3892cf616702a4f4094dd94b16c1c","time":1700000000.5,"type":"STORE"}',1.79529815146218466766e+09,5,1.79529815917439293862e+09,4,'{"errors":["File aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is not here"]}');
INSERT INTO "pending" VALUES('4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"item_type\":\"storage\",\"item_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":3,\"content_type\":\"text/plain\",\"ref\":\"name\",\"tags\":[\"t\"],\"metadata\":{\"a\":{\"b\":1}},\"payment\":{\"chain\":\"ETH\",\"receiver\":null,\"type\":\"credit\"}}","item_hash":"4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"4v5dy3fNRZawhWbe8F5mryrb45kDphBPmUu7KSYbqS31DYhUDdXnt68sGwQFukwHihUztyYn6emy4zwHPgmVGsxr\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"STORE"}',1.79529815234838128088e+09,4,1.79529816471774697301e+09,4,'{"errors":["File aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is not here"]}');
INSERT INTO "pending" VALUES('557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"hashes\":[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8\"],\"aggregates\":[],\"reason\":\"why\"}","item_hash":"557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"5kMTorTg4qvTGPQK4sncnp4ntfszrMEWcziCeJ2AV4xKjsnKsD6ceFw43R2akFVpZrCM7niir8bpiwzgZ4y59K6U\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"FORGET"}',1.79529815813445973397e+09,2,1.79529815966284871098e+09,501,'{"errors":["Message aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is unknown"]}');
INSERT INTO "pending" VALUES('b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8','{"chain":"SOL","channel":"TEST","item_content":"{\"address\":\"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"type\":\"vm-function\",\"environment\":{\"reproducible\":true,\"internet\":true,\"aleph_api\":true,\"shared_cache\":false},\"code\":{\"encoding\":\"squashfs\",\"entrypoint\":\"main:app\",\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"interface\":\"asgi\",\"args\":[\"-x\"],\"use_latest\":true},\"runtime\":{\"ref\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"use_latest\":true,\"comment\":\"runtime\"},\"data\":{\"encoding\":\"zip\",\"mount\":\"/data\",\"ref\":\"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi\",\"use_latest\":null},\"export\":{\"encoding\":\"plain\",\"mount\":\"/out\"},\"on\":{\"http\":true,\"message\":[{\"sender\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\"}],\"persistent\":false}}","item_hash":"b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8","item_type":"inline","sender":"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF","signature":"{\"signature\": \"2P3uoJ6J6sNdchBtaXCUgLzWg2Q8WCEYoRXjANrhGstEUssdw78k1eH3cV5RRmrEy47BqMzXmRmscR4sDZWJqppF\", \"publicKey\": \"FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF\"}","time":1700000000.5,"type":"PROGRAM"}',1.79529815564619922639e+09,4,1.7952981594596698284e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]}');
INSERT INTO "pending" VALUES('bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658','{"chain":"ETH","channel":"TEST","item_content":"{\"address\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"time\":1700000000.123456,\"allow_amend\":false,\"metadata\":{\"name\":\"n\",\"tags\":[\"x\"],\"n\":1,\"z\":null},\"authorized_keys\":[\"ssh-ed25519 AAAA\"],\"variables\":{\"A\":\"b\"},\"resources\":{\"vcpus\":2,\"memory\":4096,\"seconds\":30,\"published_ports\":[{\"protocol\":\"udp\",\"port\":53},{\"port\":22}]},\"payment\":{\"type\":\"credit\"},\"requirements\":{\"cpu\":{\"architecture\":\"x86_64\",\"vendor\":\"AuthenticAMD\",\"features\":[\"sev\"]},\"node\":{\"owner\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\",\"address_regex\":\".*\",\"node_hash\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"terms_and_conditions\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},\"gpu\":null},\"volumes\":[{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"mount\":\"/a\",\"comment\":\"c\"},{\"ephemeral\":true,\"size_mib\":100,\"mount\":\"/b\"},{\"size_mib\":500,\"mount\":\"/c\"},{\"size_mib\":5000,\"mount\":\"/d\"},{\"parent\":{\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"persistence\":\"host\",\"name\":\"n\",\"size_mib\":20}],\"replaces\":null,\"type\":\"vm-function\",\"environment\":{\"reproducible\":true,\"internet\":true,\"aleph_api\":true,\"shared_cache\":false},\"code\":{\"encoding\":\"squashfs\",\"entrypoint\":\"main:app\",\"ref\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"interface\":\"asgi\",\"args\":[\"-x\"],\"use_latest\":true},\"runtime\":{\"ref\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"use_latest\":true,\"comment\":\"runtime\"},\"data\":{\"encoding\":\"zip\",\"mount\":\"/data\",\"ref\":\"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi\",\"use_latest\":null},\"export\":{\"encoding\":\"plain\",\"mount\":\"/out\"},\"on\":{\"http\":true,\"message\":[{\"sender\":\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\"}],\"persistent\":false}}","item_hash":"bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658","item_type":"inline","sender":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","signature":"0xf4c890a0b8de9461c16f55fb459478d708f5490104b1aa8ce4486c80e7ecd9b61804c76301187bf2c6ae0d7ebaf489ce628b769cdefd1e4a7ad91c82b85afb061c","time":1700000000.5,"type":"PROGRAM"}',1.79529815529943132402e+09,4,1.79529816148672413831e+09,301,'{"errors":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi","bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]}');
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
CREATE TABLE posts (
    item_hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    type TEXT,
    ref TEXT,
    amends TEXT,
    channel TEXT,
    content TEXT NOT NULL,
    created REAL NOT NULL,
    latest_amend TEXT,
    last_updated REAL NOT NULL
);
INSERT INTO "posts" VALUES('569b99359efa19750ee61a20927b1879583e882c7212071b75e44b8d97756b01','0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266','test',NULL,NULL,'TEST','{"hello":["world"]}',1.70000000012345600132e+09,NULL,1.70000000012345600132e+09);
INSERT INTO "posts" VALUES('1c6811e75a9195d3fe90e9d5481e5c7030e35e18a38f5dd9d3eda8566b753f67','FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF','test',NULL,NULL,'TEST','{"hello":["world"]}',1.70000000012345600132e+09,NULL,1.70000000012345600132e+09);
CREATE TABLE rejected (
    item_hash TEXT PRIMARY KEY,
    envelope TEXT NOT NULL,
    error_code INTEGER NOT NULL,
    details TEXT
) WITHOUT ROWID;
CREATE TABLE statuses (
    item_hash TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    reception_time REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "statuses" VALUES('070ea2e73cb2eb3e2d0adc9855a94b03279865f004205a8a5ffd76cfe58e0b5b','pending',1.79529815654086422919e+09);
INSERT INTO "statuses" VALUES('089b527c689256736e26d1afb98bcf6ec01e2fdae8dcbefd7903fd20248a56f3','pending',1.79529815768010926244e+09);
INSERT INTO "statuses" VALUES('1c6811e75a9195d3fe90e9d5481e5c7030e35e18a38f5dd9d3eda8566b753f67','processed',1.79529815138657712937e+09);
INSERT INTO "statuses" VALUES('24d893aaa57563466852a5a9f8ca0dd0d6c9f9434e2b1eaa5514a4ddaab296bf','pending',1.79529815662023901944e+09);
INSERT INTO "statuses" VALUES('2742b3293baf2c3732b04190d3bc821797be4a58e475ccd78a0962d44f14b1ea','processed',1.79529815141390705103e+09);
INSERT INTO "statuses" VALUES('3280adaa2d09b2bba9c6255d63eef4f3faff9ee31b0179a79c2ea38b278cf880','processed',1.79529815915177154536e+09);
INSERT INTO "statuses" VALUES('329c79fcedf8e19ee38780f69dcc687f03e156f29e1d7468a91c596e7a891a5f','pending',1.79529815146218466766e+09);
INSERT INTO "statuses" VALUES('4e7e2832d12ff6f4dda1d9343fcfca192cf8260b44a8a37a6d77599384f451ad','pending',1.79529815234838128088e+09);
INSERT INTO "statuses" VALUES('557f80d1558755b8fed1fcec508d2b6dc84e3e5a2aba28de1add03c3b99ea0de','pending',1.79529815813445973397e+09);
INSERT INTO "statuses" VALUES('569b99359efa19750ee61a20927b1879583e882c7212071b75e44b8d97756b01','processed',1.79529815135818529127e+09);
INSERT INTO "statuses" VALUES('b46181ef99b62df0441788a893902e6e499840c68630a3732ec6b954978522b8','pending',1.79529815564619922639e+09);
INSERT INTO "statuses" VALUES('bbee2ec5e16f487ed56f645816b67f2a5274ac3dd4034e266b4b2547c025d658','pending',1.79529815529943132402e+09);
INSERT INTO "statuses" VALUES('e97285d61bb4acad2852b5396b5fdc515b5e2e979d697d7edf17945b7e750329','processed',1.79529815143570590021e+09);
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
CREATE INDEX messages_time ON messages (time DESC, item_hash);
CREATE INDEX messages_type_time ON messages (type, time DESC, item_hash);
CREATE INDEX messages_owner_time ON messages (owner, time DESC, item_hash);
CREATE INDEX messages_sender_time ON messages (sender, time DESC, item_hash);
CREATE INDEX messages_channel_time ON messages (channel, time DESC, item_hash);
CREATE INDEX messages_ref ON messages (content_ref) WHERE content_ref IS NOT NULL;
CREATE INDEX messages_content_hash ON messages (content_item_hash) WHERE content_item_hash IS NOT NULL;
CREATE INDEX pending_due ON pending (next_attempt);
CREATE INDEX pending_dependencies_item ON pending_dependencies (item_hash);
CREATE INDEX aggregate_elements_key ON aggregate_elements (owner, key, created, item_hash);
CREATE INDEX posts_amends ON posts (amends) WHERE amends IS NOT NULL;
CREATE INDEX posts_owner ON posts (owner, last_updated DESC);
CREATE INDEX posts_type ON posts (type, last_updated DESC);
CREATE INDEX file_pins_file ON file_pins (file_hash);
CREATE UNIQUE INDEX file_pins_item ON file_pins (item_hash, kind) WHERE item_hash IS NOT NULL;
CREATE INDEX file_pins_owner ON file_pins (owner, created DESC) WHERE kind = 'store';
CREATE INDEX file_pins_grace ON file_pins (delete_by) WHERE delete_by IS NOT NULL;
CREATE INDEX vms_replaces ON vms (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX vm_volumes_vm ON vm_volumes (vm);
CREATE INDEX credit_lots_address ON credit_lots (address, message_time, credit_ref, credit_index);
CREATE INDEX costs_owner ON costs (owner, payment_type);
CREATE INDEX costs_item ON costs (item_hash);
COMMIT;
