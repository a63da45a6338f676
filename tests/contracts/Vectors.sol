// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev What we use of forge's cheat codes to read tests/vectors.
interface Files {
    function readFile(string calldata path) external view returns (string memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function parseJson(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonKeys(string calldata json, string calldata key) external pure returns (string[] memory);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function parseJsonStringArray(string calldata json, string calldata key) external pure returns (string[] memory);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonBytesArray(string calldata json, string calldata key) external pure returns (bytes[] memory);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonUintArray(string calldata json, string calldata key) external pure returns (uint256[] memory);
    function parseBytes(string calldata text) external pure returns (bytes memory);
    function toString(uint256 x) external pure returns (string memory);
}

/// @dev The published vectors, read as JSON. A key is a path: `.games[3].moves`.
abstract contract Vectors {
    Files internal constant FILES = Files(address(uint160(uint256(keccak256("hevm cheat code")))));

    function read(string memory name) internal view returns (string memory) {
        return FILES.readFile(string.concat("tests/vectors/", name, ".json"));
    }

    /// @dev `name[i]more`
    function item(string memory name, uint256 i, string memory more) internal pure returns (string memory) {
        return string.concat(name, "[", FILES.toString(i), "]", more);
    }

    /// @dev Hexadecimal digits, or none.
    function hexadecimal(string memory json, string memory key) internal pure returns (bytes memory) {
        return FILES.parseBytes(string.concat("0x", FILES.parseJsonString(json, key)));
    }

    function equal(string memory a, string memory b) internal pure returns (bool) {
        return keccak256(bytes(a)) == keccak256(bytes(b));
    }

    /// @dev How many members the list has.
    function count(string memory json, string memory list) internal view returns (uint256 n) {
        while (FILES.keyExistsJson(json, item(list, n, ""))) ++n;
    }

    /// @dev Whether the call reverts with this custom error.
    function refused(address who, bytes memory call, bytes4 selector) internal view {
        (bool done, bytes memory answer) = who.staticcall(call);
        require(!done, "accepted");
        require(bytes4(answer) == selector, string.concat("another error than expected"));
    }
}
